import type * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';
import { rows } from './shapes.js';

type Epsilon = { epsilon: number };
/** `rounds`: only layers read the result, so the engine may return it in the precision that they multiply in. */
type Rounds = Epsilon & { rounds: boolean };

type Standardized = { normalized: tf.Tensor; scale: tf.Tensor };

/**
 * Rows with zero mean and unit variance, and the reciprocal standard deviation (rows, 1) by which they were scaled. Where the
 * variance overflows, that is NaN: zero would make an ordinary row of one that has gone wrong.
 */
function standardize(x: tf.Tensor, epsilon: number): Standardized {
  const centred = x.sub(x.mean(-1, true));
  const variance = centred.square().mean(-1, true);
  const scale = variance.add(epsilon).rsqrt().add(variance.sub(variance));
  return { normalized: centred.mul(scale), scale };
}

/** The gradient by the x of `standardize`, from the gradient g by its normalized rows. */
const standardizeGrad = (g: tf.Tensor, { normalized, scale }: Standardized): tf.Tensor =>
  g
    .sub(g.mean(-1, true))
    .sub(normalized.mul(g.mul(normalized).mean(-1, true)))
    .mul(scale);

const layerNormGrad = defineOp({
  name: 'alitok.LayerNormGrad',
  inputs: ['dy', 'x', 'weight'],
  compose: ({ dy, x, weight }, { epsilon }: Epsilon) => {
    const standardized = standardize(rows(x), epsilon);
    const dyRows = rows(dy);
    const dx = standardizeGrad(dyRows.mul(weight), standardized);
    return [dx.reshape(x.shape), dyRows.mul(standardized.normalized).sum(0), dyRows.sum(0)];
  },
});

export const layerNormOp = defineOp({
  name: 'alitok.LayerNorm',
  inputs: ['x', 'weight', 'bias'],
  compose: ({ x, weight, bias }, { epsilon }: Rounds): tf.Tensor =>
    standardize(x, epsilon).normalized.mul(weight).add(bias),
  save: ['x', 'weight'],
  backward: layerNormGrad,
  gradient: ['x', 'weight', 'bias'],
});

/** LayerNorm over the last dimension: x (…, d), weight and bias (d). Returns (…, d). Set `rounds` if only layers read it. */
export function layerNorm(
  x: tf.Tensor,
  weight: tf.Tensor,
  bias: tf.Tensor,
  { epsilon = 1e-5, rounds = false }: Partial<Rounds> = {},
): tf.Tensor {
  return layerNormOp({ x, weight, bias }, { epsilon, rounds });
}

const rmsNormGrad = defineOp({
  name: 'alitok.RMSNormGrad',
  inputs: ['dy', 'x', 'weight'],
  compose: ({ dy, x, weight }, { epsilon }: Epsilon) => {
    const [xRows, dyRows] = [rows(x), rows(dy)];
    const scale = xRows.square().mean(-1, true).add(epsilon).rsqrt();
    const normalized = xRows.mul(scale);
    const g = dyRows.mul(weight);
    const dx = g.sub(normalized.mul(g.mul(xRows).mean(-1, true).mul(scale))).mul(scale);
    return [dx.reshape(x.shape), dyRows.mul(normalized).sum(0)];
  },
});

export const rmsNormOp = defineOp({
  name: 'alitok.RMSNorm',
  inputs: ['x', 'weight'],
  compose: ({ x, weight }, { epsilon }: Rounds): tf.Tensor =>
    x.mul(x.square().mean(-1, true).add(epsilon).rsqrt()).mul(weight),
  save: ['x', 'weight'],
  backward: rmsNormGrad,
  gradient: ['x', 'weight'],
});

/** RMSNorm over the last dimension: x (…, d), weight (d). Returns (…, d). Set `rounds` if only layers read it. */
export function rmsNorm(
  x: tf.Tensor,
  weight: tf.Tensor,
  { epsilon = 1e-5, rounds = false }: Partial<Rounds> = {},
): tf.Tensor {
  return rmsNormOp({ x, weight }, { epsilon, rounds });
}

type Groups = { groups: number; epsilon: number };

/** (B, H, W, C) → (B, groups, H·W·C/groups), the sets that share one mean and variance. */
function toGroups(x: tf.Tensor, groups: number): tf.Tensor {
  const [batch, height, width, channels] = x.shape;
  return x
    .reshape([batch, height * width, groups, channels / groups])
    .transpose([0, 2, 1, 3])
    .reshape([batch, groups, (height * width * channels) / groups]);
}

function fromGroups(x: tf.Tensor, shape: number[], groups: number): tf.Tensor {
  const [batch, height, width, channels] = shape;
  return x
    .reshape([batch, groups, height * width, channels / groups])
    .transpose([0, 2, 1, 3])
    .reshape(shape);
}

const groupNormGrad = defineOp({
  name: 'alitok.GroupNormGrad',
  inputs: ['dy', 'x', 'weight'],
  compose: ({ dy, x, weight }, { groups, epsilon }: Groups) => {
    const standardized = standardize(toGroups(x, groups), epsilon);
    const dx = standardizeGrad(toGroups(dy.mul(weight), groups), standardized);
    const dweight = rows(dy.mul(fromGroups(standardized.normalized, x.shape, groups))).sum(0);
    return [fromGroups(dx, x.shape, groups), dweight, rows(dy).sum(0)];
  },
});

export const groupNormOp = defineOp({
  name: 'alitok.GroupNorm',
  inputs: ['x', 'weight', 'bias'],
  compose: ({ x, weight, bias }, { groups, epsilon }: Groups): tf.Tensor =>
    fromGroups(standardize(toGroups(x, groups), epsilon).normalized, x.shape, groups)
      .mul(weight)
      .add(bias),
  save: ['x', 'weight'],
  backward: groupNormGrad,
  gradient: ['x', 'weight', 'bias'],
});

/** GroupNorm of x (B, H, W, C) over `groups` sets of channels; weight and bias (C). Returns (B, H, W, C). */
export function groupNorm(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  bias: tf.Tensor,
  groups: number,
  epsilon = 1e-5,
): tf.Tensor4D {
  return groupNormOp({ x, weight, bias }, { groups, epsilon }) as tf.Tensor4D;
}
