import type { TensorInfo } from '@tensorflow/tfjs';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

/** Whether our own CPU operators (native/) take part; elsewhere ATen operators are composed. */
export const ours = ({ backend }: Kernel): boolean => backend.device === 'cpu';

/** Whether operators multiply tensors of bfloat16; what these are made from and what comes out stays float32. */
export const inHalf = ({ backend }: Kernel): boolean =>
  backend.precision === 'bf16' && backend.multipliesHalf;

/**
 * x as layers multiply it, freed when the kernel ends. A processor without instructions for bfloat16 gets numbers rounded
 * to it in float32: PyTorch's loops there would also add up in bfloat16, and lose several percent of a long sum.
 */
export function rounded(kernel: Kernel, x: TensorId): TensorId {
  const { use, backend } = kernel;
  if (backend.precision !== 'bf16') return x;
  const half = use('to.dtype', x, ScalarType.bfloat16);
  return inHalf(kernel) ? half : use('to.dtype', half, ScalarType.float32);
}

/**
 * The same for a whole tensor of tfjs, kept as long as that: a weight is rounded once a step, or once while codes are
 * sampled, and what a layer was given is there again for its gradient.
 */
export function inPrecision(kernel: Kernel, x: TensorInfo): TensorId {
  const { backend, id } = kernel;
  if (!inHalf(kernel)) return rounded(kernel, id(x));
  return backend.halfOf(x);
}
