import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';
import { inFloat32 } from './precision.js';
import { rows } from './shapes.js';

const embeddingGrad = defineOp({
  name: 'alitok.EmbeddingGrad',
  inputs: ['dy', 'indices'],
  compose: ({ dy, indices }, attributes: { rows: number }) =>
    tf.unsortedSegmentSum(rows(dy), indices.flatten() as tf.Tensor1D, attributes.rows),
});

export const embeddingOp = defineOp({
  name: 'alitok.Embedding',
  inputs: ['weight', 'indices'],
  compose: ({ weight, indices }): tf.Tensor =>
    tf.gather(weight, indices.flatten() as tf.Tensor1D).reshape([...indices.shape, weight.shape[1]!]),
  save: ['weight', 'indices'],
  backward: embeddingGrad,
  gradient: (dy, { weight, indices }) => ({
    weight: embeddingGrad({ dy, indices }, { rows: weight.shape[0] }),
  }),
});

/** The rows of weight (N, d) at the int32 indices (…). Returns (…, d). Out-of-range indices are undefined. */
export function embedding(weight: tf.Tensor, indices: tf.Tensor): tf.Tensor {
  return embeddingOp({ weight, indices });
}

const crossEntropyGrad = defineOp({
  name: 'alitok.CrossEntropyGrad',
  inputs: ['dy', 'logits', 'targets'],
  compose: ({ dy, logits, targets }): tf.Tensor =>
    logits.softmax().sub(tf.oneHot(targets, logits.shape[1]!)).mul(dy.expandDims(-1)),
});

export const crossEntropyOp = defineOp({
  name: 'alitok.CrossEntropy',
  inputs: ['logits', 'targets'],
  compose: ({ logits, targets }): tf.Tensor => {
    const shifted = logits.sub(logits.max(-1, true));
    // Chosen by `where`: infinite logits times zeros would be NaN.
    const chosen = tf.where(tf.oneHot(targets, logits.shape[1]!).toBool(), shifted, 0).sum(-1);
    return shifted.exp().sum(-1).log().sub(chosen);
  },
  save: ['logits', 'targets'],
  backward: crossEntropyGrad,
  gradient: ['logits'],
});

/** −log softmax(logits)[target] for logits (R, N) and int32 targets (R). Returns (R). */
export function crossEntropy(logits: tf.Tensor2D, targets: tf.Tensor1D): tf.Tensor1D {
  return crossEntropyOp({ logits, targets }) as tf.Tensor1D;
}

/** The largest float32. */
const LARGEST = 2 ** 128 - 2 ** 104;

export const nearestCodeOp = defineOp({
  name: 'alitok.NearestCode',
  inputs: ['z', 'codebook'],
  compose: ({ z, codebook }): tf.Tensor => {
    // ‖e‖² − 2z·e: ‖z‖², which all distances of a row share, is left out.
    const products = tf.matMul(z as tf.Tensor2D, codebook as tf.Tensor2D, false, true);
    const distances = codebook.square().sum(-1).sub(products.mul(2));
    return tf.where(distances.isNaN(), Number.NEGATIVE_INFINITY, distances.maximum(-LARGEST)).argMin(-1);
  },
});

/** The most distances that are in memory at once (256 MiB): the clustering update compares the features of all processes. */
const MOST_DISTANCES = 2 ** 26;

/**
 * For each row of z (R, c), the index of the row of codebook (N, c) at the smallest Euclidean distance: (R) int32. A distance
 * that is NaN counts as the smallest. Always computed in float32: products with a shorter mantissa would find other codes among
 * near ones.
 */
export function nearestCode(z: tf.Tensor2D, codebook: tf.Tensor2D): tf.Tensor1D {
  const [count, width] = z.shape;
  const nearest = (part: tf.Tensor2D) => inFloat32(() => nearestCodeOp({ z: part, codebook }) as tf.Tensor1D);
  const together = Math.max(1, Math.floor(MOST_DISTANCES / codebook.shape[0]));
  if (count <= together) return nearest(z);
  return tf.tidy(() => {
    const parts: tf.Tensor1D[] = [];
    for (let first = 0; first < count; first += together)
      parts.push(nearest(z.slice([first, 0], [Math.min(together, count - first), width])));
    return tf.concat1d(parts);
  });
}
