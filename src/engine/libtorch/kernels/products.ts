import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

/** Whether our own CPU operators (native/) take part; elsewhere ATen operators are composed. */
export const ours = ({ backend }: Kernel): boolean => backend.device === 'cpu';

/** They work on so many numbers at a time. */
export const LANES = 16;

/** Whether products are made of bfloat16 numbers; what they are made from and what comes out stays float32. */
export const inHalf = ({ backend }: Kernel): boolean => backend.precision === 'bf16';

/** x as layers multiply it. */
export const inPrecision = (kernel: Kernel, x: TensorId): TensorId =>
  inHalf(kernel) ? kernel.use('to.dtype', x, ScalarType.bfloat16) : x;
