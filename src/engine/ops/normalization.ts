import type * as tf from '@tensorflow/tfjs';
import { defineOp, type Inputs, rows } from './define.js';

type Epsilon = { epsilon: number };
/** `rounds`: whether only layers take the result, so that an engine may give it in the precision that they multiply. */
type Rounds = Epsilon & { rounds: boolean };

/**
 * Rows with zero mean and unit variance, and the reciprocal deviation (rows, 1) they were scaled by. A variance beyond all
 * floats has no deviation: NaN, for zero would make a row like any other of one that has gone wrong.
 */
function standardize(x: tf.Tensor, epsilon: number): { normalized: tf.Tensor; scale: tf.Tensor } {
  const centred = x.sub(x.mean(-1, true));
  const variance = centred.square().mean(-1, true);
  const scale = variance.add(epsilon).rsqrt().add(variance.sub(variance));
  return { normalized: centred.mul(scale), scale };
}

const runLayerNorm = defineOp<Rounds>({
  name: 'alitok.LayerNorm',
  compose: ({ x, weight, bias }, { epsilon }) => standardize(x, epsilon).normalized.mul(weight).add(bias),
  save: ['x', 'weight'],
  gradient: (dy, { x, weight }, attributes) => {
    const [dx, dweight, dbias] = layerNormGrad({ dy, x, weight }, attributes) as tf.Tensor[];
    return { x: dx, weight: dweight, bias: dbias };
  },
});

const layerNormGrad = defineOp<Epsilon>({
  name: 'alitok.LayerNormGrad',
  compose: ({ dy, x, weight }, { epsilon }) => {
    const { normalized, scale } = standardize(rows(x), epsilon);
    const dyRows = rows(dy);
    const g = dyRows.mul(weight);
    const dx = g
      .sub(g.mean(-1, true))
      .sub(normalized.mul(g.mul(normalized).mean(-1, true)))
      .mul(scale);
    return [dx.reshape(x.shape), dyRows.mul(normalized).sum(0), dyRows.sum(0)];
  },
});

/** LayerNorm over the last dimension: x (…, d), weight and bias (d). Gives (…, d), for layers alone if `rounds`. */
export function layerNorm(
  x: tf.Tensor,
  weight: tf.Tensor,
  bias: tf.Tensor,
  { epsilon = 1e-5, rounds = false }: Partial<Rounds> = {},
): tf.Tensor {
  return runLayerNorm({ x, weight, bias }, { epsilon, rounds }) as tf.Tensor;
}

const runRMSNorm = defineOp<Rounds>({
  name: 'alitok.RMSNorm',
  compose: ({ x, weight }, { epsilon }) => x.mul(x.square().mean(-1, true).add(epsilon).rsqrt()).mul(weight),
  save: ['x', 'weight'],
  gradient: (dy, { x, weight }, attributes) => {
    const [dx, dweight] = rmsNormGrad({ dy, x, weight }, attributes) as tf.Tensor[];
    return { x: dx, weight: dweight };
  },
});

/** Gradients of `rmsNorm` by x and weight. */
export const rmsNormGrad = defineOp<Epsilon>({
  name: 'alitok.RMSNormGrad',
  compose: ({ dy, x, weight }, { epsilon }) => {
    const [xRows, dyRows] = [rows(x), rows(dy)];
    const scale = xRows.square().mean(-1, true).add(epsilon).rsqrt();
    const normalized = xRows.mul(scale);
    const g = dyRows.mul(weight);
    const dx = g.sub(normalized.mul(g.mul(xRows).mean(-1, true).mul(scale))).mul(scale);
    return [dx.reshape(x.shape), dyRows.mul(normalized).sum(0)];
  },
});

/** RMSNorm over the last dimension: x (…, d), weight (d). Gives (…, d), for layers alone if `rounds`. */
export function rmsNorm(
  x: tf.Tensor,
  weight: tf.Tensor,
  { epsilon = 1e-5, rounds = false }: Partial<Rounds> = {},
): tf.Tensor {
  return runRMSNorm({ x, weight }, { epsilon, rounds }) as tf.Tensor;
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

const runGroupNorm = defineOp<Groups>({
  name: 'alitok.GroupNorm',
  compose: ({ x, weight, bias }, { groups, epsilon }) =>
    fromGroups(standardize(toGroups(x, groups), epsilon).normalized, x.shape, groups)
      .mul(weight)
      .add(bias),
  save: ['x', 'weight'],
  gradient: (dy, { x, weight }, attributes) => {
    const [dx, dweight, dbias] = groupNormGrad({ dy, x, weight }, attributes) as tf.Tensor[];
    return { x: dx, weight: dweight, bias: dbias };
  },
});

const groupNormGrad = defineOp<Groups>({
  name: 'alitok.GroupNormGrad',
  compose: ({ dy, x, weight }: Inputs, { groups, epsilon }) => {
    const { normalized, scale } = standardize(toGroups(x, groups), epsilon);
    const g = toGroups(dy.mul(weight), groups);
    const dx = g
      .sub(g.mean(-1, true))
      .sub(normalized.mul(g.mul(normalized).mean(-1, true)))
      .mul(scale);
    const dweight = rows(dy.mul(fromGroups(normalized, x.shape, groups))).sum(0);
    return [fromGroups(dx, x.shape, groups), dweight, rows(dy).sum(0)];
  },
});

/** GroupNorm of x (B, H, W, C) over `groups` sets of channels; weight and bias (C). Gives (B, H, W, C). */
export function groupNorm(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  bias: tf.Tensor,
  groups: number,
  epsilon = 1e-5,
): tf.Tensor4D {
  return runGroupNorm({ x, weight, bias }, { groups, epsilon }) as tf.Tensor4D;
}
