import type { TensorInfo } from '@tensorflow/tfjs';
import { ScalarType } from '../backend.js';
import type { Argument, TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

/** Whether the engine computes on the CPU, for which we have our own operators (native/). */
export const onCpu = ({ backend }: Kernel): boolean => backend.device === 'cpu';

/** Whether the device is a CUDA device with our own kernels (native/cuda). */
export const ownCuda = (kernel: Kernel): boolean => !onCpu(kernel) && kernel.backend.ownKernels;

/** Whether our own operators can run; otherwise kernels are made of ATen operators. */
export const ours = (kernel: Kernel): boolean => onCpu(kernel) || ownCuda(kernel);

/**
 * Whether products are computed in bfloat16. The tensors they read stay in float32, and so do their results unless
 * `keepsHalf`.
 */
export const inHalf = ({ backend }: Kernel): boolean =>
  backend.precision === 'bf16' && backend.multipliesHalf;

/** Whether results of products stay in bfloat16, which our own kernels read, until float32 is needed. */
export const keepsHalf = (kernel: Kernel): boolean => inHalf(kernel) && ownCuda(kernel);

/** Whether x is in bfloat16 and operators that read it should stay in bfloat16. */
export const staysHalf = (kernel: Kernel, x: TensorInfo): boolean =>
  keepsHalf(kernel) && kernel.backend.isHalf(x);

/** x for our own operators that keep its type: in bfloat16 if `staysHalf`. */
export const asGiven = (kernel: Kernel, x: TensorInfo): TensorId =>
  staysHalf(kernel, x) ? kernel.backend.halfOf(x) : kernel.id(x);

/** y in the type of `asGiven(x)`, as another input of the same operator. */
export const alike = (kernel: Kernel, x: TensorInfo, y: TensorInfo): TensorId =>
  staysHalf(kernel, x) ? kernel.backend.halfOf(y) : kernel.id(y);

/** Whether our own operators return bfloat16: if x is in it, or if only layers read the result (`rounds`) and multiply in it. */
export const givesHalf = (kernel: Kernel, x: TensorInfo, rounds: boolean): boolean =>
  staysHalf(kernel, x) || (rounds && keepsHalf(kernel));

/** Runs an operator whose single result is bfloat16 if `half`, else float32. */
export const outEither = (kernel: Kernel, half: boolean, name: string, ...args: Argument[]): TensorInfo =>
  half ? kernel.outHalf(name, ...args) : kernel.out('float32', name, ...args);

/** Wraps the result of an operator that was given `asGiven(x)`. */
export const outGiven = (kernel: Kernel, x: TensorInfo, result: TensorId): TensorInfo =>
  staysHalf(kernel, x) ? kernel.backend.wrapHalf(result) : kernel.backend.wrap(result, 'float32');

/** Runs a product of `inPrecision` factors, or the last operator after one, and wraps its result. */
export function outProduct(kernel: Kernel, name: string, ...args: Argument[]): TensorInfo {
  if (keepsHalf(kernel)) return kernel.outHalf(name, ...args);
  return kernel.out('float32', 'to.dtype', kernel.use(name, ...args), ScalarType.float32);
}

/**
 * x in the precision that layers multiply in, freed when the kernel ends. A processor without bfloat16 instructions gets
 * float32 numbers rounded to bfloat16: PyTorch's loops there would also sum in bfloat16 and lose several percent of a long sum.
 */
export function rounded(kernel: Kernel, x: TensorId): TensorId {
  const { use, backend } = kernel;
  if (backend.precision !== 'bf16') return x;
  const half = use('to.dtype', x, ScalarType.bfloat16);
  return inHalf(kernel) ? half : use('to.dtype', half, ScalarType.float32);
}

/**
 * The same for a whole tfjs tensor, kept as long as the tensor. So a weight is rounded once per training step or sampling run,
 * and a layer's input is not rounded again for the gradient.
 */
export function inPrecision(kernel: Kernel, x: TensorInfo): TensorId {
  const { backend, id } = kernel;
  if (!inHalf(kernel)) return rounded(kernel, id(x));
  return backend.halfOf(x);
}
