import type { TensorInfo } from '@tensorflow/tfjs';
import { ScalarType } from '../backend.js';
import type { Argument, TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

/** Whether the processor computes, for which we have operators of our own (native/). */
export const onCpu = ({ backend }: Kernel): boolean => backend.device === 'cpu';

/** Whether the device is a CUDA device with our own kernels (native/cuda). */
export const ownCuda = (kernel: Kernel): boolean => !onCpu(kernel) && kernel.backend.ownKernels;

/** Whether there are our own operators; elsewhere ATen operators are composed. */
export const ours = (kernel: Kernel): boolean => onCpu(kernel) || ownCuda(kernel);

/**
 * Whether operators multiply tensors of bfloat16; what these are made from stays float32, and what comes out does where not
 * `keepsHalf`.
 */
export const inHalf = ({ backend }: Kernel): boolean =>
  backend.precision === 'bf16' && backend.multipliesHalf;

/** Whether what products give stays in bfloat16 until somebody needs it in float32: our own kernels read it so. */
export const keepsHalf = (kernel: Kernel): boolean => inHalf(kernel) && ownCuda(kernel);

/** Whether to go on in bfloat16 from x, which a product gave in it. */
export const staysHalf = (kernel: Kernel, x: TensorInfo): boolean =>
  keepsHalf(kernel) && kernel.backend.isHalf(x);

/** x as our own operators take it that keep its type: in bfloat16 where `staysHalf`. */
export const asGiven = (kernel: Kernel, x: TensorInfo): TensorId =>
  staysHalf(kernel, x) ? kernel.backend.halfOf(x) : kernel.id(x);

/** y of the type of `asGiven(x)`, as another input of the same operator. */
export const alike = (kernel: Kernel, x: TensorInfo, y: TensorInfo): TensorId =>
  staysHalf(kernel, x) ? kernel.backend.halfOf(y) : kernel.id(y);

/** Whether our own operators give bfloat16: for x in bfloat16, and where only layers read the result (`rounds`), in bfloat16. */
export const givesHalf = (kernel: Kernel, x: TensorInfo, rounds: boolean): boolean =>
  staysHalf(kernel, x) || (rounds && keepsHalf(kernel));

/** Runs an operator whose one result is bfloat16 if `half`, else float32. */
export const outEither = (kernel: Kernel, half: boolean, name: string, ...args: Argument[]): TensorInfo =>
  half ? kernel.outHalf(name, ...args) : kernel.out('float32', name, ...args);

/** Makes the result of an operator that was given `asGiven(x)` a tensor. */
export const outGiven = (kernel: Kernel, x: TensorInfo, result: TensorId): TensorInfo =>
  staysHalf(kernel, x) ? kernel.backend.wrapHalf(result) : kernel.backend.wrap(result, 'float32');

/** Runs a product of `inPrecision` factors, or the last operator after one, and makes its result a tfjs tensor. */
export function outProduct(kernel: Kernel, name: string, ...args: Argument[]): TensorInfo {
  if (keepsHalf(kernel)) return kernel.outHalf(name, ...args);
  return kernel.out('float32', 'to.dtype', kernel.use(name, ...args), ScalarType.float32);
}

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
