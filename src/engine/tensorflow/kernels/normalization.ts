import type { TensorInfo } from '@tensorflow/tfjs';
import { groupNormOp, layerNormOp, rmsNormOp } from '../../ops/normalization.js';
import { KEEP_DIMS } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement, type Kernel } from './register.js';

/** Means over some axes, which stay with length 1. */
const mean = ({ use, ints }: Kernel, x: Handle, axes: readonly number[]) =>
  use('Mean', [x, ints(axes)], KEEP_DIMS);

const meanSquare = ({ use, last, ints }: Kernel, x: Handle, axes: readonly number[]) =>
  last('Mean', [use('Square', [x]), ints(axes)], KEEP_DIMS);

const meanProduct = ({ use, last, ints }: Kernel, x: Handle, y: Handle, axes: readonly number[]) =>
  last('Mean', [use('Mul', [x, y]), ints(axes)], KEEP_DIMS);

const LAST = [-1];

/** (…, d) → (rows, d), without a copy. */
export function rowsOf({ handle, reshape }: Kernel, x: TensorInfo): Handle {
  return x.shape.length === 2 ? handle(x) : reshape(handle(x), [-1, x.shape.at(-1)!]);
}

interface Standardized {
  normalized: Handle;
  scale: Handle;
}

/**
 * x with zero mean and unit variance over some axes, and the reciprocal standard deviation by which it was scaled. Where the
 * variance overflows, that is NaN, as in the composition.
 */
function standardize(kernel: Kernel, x: Handle, axes: readonly number[], epsilon: number): Standardized {
  const { use, number } = kernel;
  const centred = use('Sub', [x, mean(kernel, x, axes)]);
  const variance = meanSquare(kernel, centred, axes);
  const reciprocal = use('Rsqrt', [use('AddV2', [variance, number(epsilon)])]);
  const scale = use('AddV2', [reciprocal, use('Sub', [variance, variance])]);
  const normalized = use('Mul', [centred, scale]);
  kernel.free(centred);
  return { normalized, scale };
}

/** The gradient by the x of `standardize`, from the gradient g by its result. */
function standardizeGrad(kernel: Kernel, g: Handle, { normalized, scale }: Standardized, axes: number[]) {
  const { use, last } = kernel;
  const along = meanProduct(kernel, g, normalized, axes);
  const across = use('Sub', [g, mean(kernel, g, axes)]);
  const rest = last('Sub', [across, use('Mul', [normalized, along])]);
  return use('Mul', [rest, scale]);
}

/** 1/√(mean(x²) + ε) over the last dimension. */
export function rmsScale(kernel: Kernel, x: Handle, epsilon: number): Handle {
  const { use, number } = kernel;
  return use('Rsqrt', [use('AddV2', [meanSquare(kernel, x, LAST), number(epsilon)])]);
}

/** RMSNorm of x (…, d) with weight (d). */
export function rms(kernel: Kernel, x: Handle, weight: Handle, epsilon: number): Handle {
  const { use, last } = kernel;
  const normalized = use('Mul', [x, rmsScale(kernel, x, epsilon)]);
  return last('Mul', [normalized, weight]);
}

/** The gradients of `rms` by x (rows, d) and by the weight. */
export function rmsGrad(kernel: Kernel, dy: Handle, x: Handle, weight: Handle, epsilon: number): Handle[] {
  const { use, last, ints } = kernel;
  const scale = rmsScale(kernel, x, epsilon);
  const normalized = use('Mul', [x, scale]);
  const dweight = use('Sum', [use('Mul', [dy, normalized]), ints([0])]);
  const g = use('Mul', [dy, weight]);
  const along = use('Mul', [meanProduct(kernel, g, x, LAST), scale]);
  const across = last('Sub', [g, last('Mul', [normalized, along])]);
  return [use('Mul', [across, scale]), dweight];
}

/** (B, H, W, C) → (B, H·W, groups, C/groups): one mean and variance for each image and group. */
const byGroups = ([batch, height, width, channels]: readonly number[], groups: number) => [
  batch,
  height * width,
  groups,
  channels / groups,
];
const OF_A_GROUP = [1, 3];

/** LayerNorm, RMSNorm and GroupNorm. */
export function registerNormalization(): void {
  implement(layerNormOp, ({ x, weight, bias }, { epsilon }, kernel) => {
    const { handle, last, out } = kernel;
    const { normalized } = standardize(kernel, handle(x), LAST, epsilon);
    return out(last('AddV2', [last('Mul', [normalized, handle(weight)]), handle(bias)]));
  });
  implement(layerNormOp.backward, ({ dy, x, weight }, { epsilon }, kernel) => {
    const { handle, use, ints, reshape, out } = kernel;
    const [xRows, dyRows] = [rowsOf(kernel, x), rowsOf(kernel, dy)];
    const standardized = standardize(kernel, xRows, LAST, epsilon);
    const dx = standardizeGrad(kernel, use('Mul', [dyRows, handle(weight)]), standardized, LAST);
    const dweight = use('Sum', [use('Mul', [dyRows, standardized.normalized]), ints([0])]);
    return [out(reshape(dx, x.shape)), out(dweight), out(use('Sum', [dyRows, ints([0])]))];
  });

  implement(rmsNormOp, ({ x, weight }, { epsilon }, kernel) =>
    kernel.out(rms(kernel, kernel.handle(x), kernel.handle(weight), epsilon)),
  );
  implement(rmsNormOp.backward, ({ dy, x, weight }, { epsilon }, kernel) => {
    const { handle, reshape, out } = kernel;
    const rows = [rowsOf(kernel, dy), rowsOf(kernel, x)] as const;
    const [dx, dweight] = rmsGrad(kernel, ...rows, handle(weight), epsilon);
    return [out(reshape(dx, x.shape)), out(dweight)];
  });

  implement(groupNormOp, ({ x, weight, bias }, { groups, epsilon }, kernel) => {
    const { handle, last, reshape, out } = kernel;
    const grouped = reshape(handle(x), byGroups(x.shape, groups));
    const { normalized } = standardize(kernel, grouped, OF_A_GROUP, epsilon);
    const scaled = last('Mul', [reshape(normalized, x.shape), handle(weight)]);
    return out(last('AddV2', [scaled, handle(bias)]));
  });
  implement(groupNormOp.backward, ({ dy, x, weight }, { groups, epsilon }, kernel) => {
    const { handle, use, ints, reshape, out } = kernel;
    const shape = byGroups(x.shape, groups);
    const standardized = standardize(kernel, reshape(handle(x), shape), OF_A_GROUP, epsilon);
    const g = reshape(use('Mul', [handle(dy), handle(weight)]), shape);
    const dx = standardizeGrad(kernel, g, standardized, OF_A_GROUP);
    const overPixels = ints([0, 1, 2]);
    const product = use('Mul', [handle(dy), reshape(standardized.normalized, x.shape)]);
    const dweight = use('Sum', [product, overPixels]);
    return [out(reshape(dx, x.shape)), out(dweight), out(use('Sum', [handle(dy), overPixels]))];
  });
}
