import * as tf from '@tensorflow/tfjs';
import { defineOp, rows } from './define.js';
import { inFloat32 } from './precision.js';

const runEmbedding = defineOp({
  name: 'alitok.Embedding',
  compose: ({ weight, indices }) =>
    tf.gather(weight, indices.flatten() as tf.Tensor1D).reshape([...indices.shape, weight.shape[1]!]),
  save: ['weight', 'indices'],
  gradient: (dy, { weight, indices }) => ({
    weight: embeddingGrad({ dy, indices }, { rows: weight.shape[0] }) as tf.Tensor,
  }),
});

const embeddingGrad = defineOp<{ rows: number }>({
  name: 'alitok.EmbeddingGrad',
  compose: ({ dy, indices }, attributes) =>
    tf.unsortedSegmentSum(rows(dy), indices.flatten() as tf.Tensor1D, attributes.rows),
});

/** The rows of weight (N, d) that indices (…) of int32 name. Gives (…, d). Out-of-range indices are undefined. */
export function embedding(weight: tf.Tensor, indices: tf.Tensor): tf.Tensor {
  return runEmbedding({ weight, indices }, {}) as tf.Tensor;
}

const runCrossEntropy = defineOp({
  name: 'alitok.CrossEntropy',
  compose: ({ logits, targets }) => {
    const shifted = logits.sub(logits.max(-1, true));
    // Chosen by `where`: infinite logits times zeros would be NaN.
    const chosen = tf.where(tf.oneHot(targets, logits.shape[1]!).toBool(), shifted, 0).sum(-1);
    return shifted.exp().sum(-1).log().sub(chosen);
  },
  save: ['logits', 'targets'],
  gradient: (dy, { logits, targets }) => ({
    logits: crossEntropyGrad({ dy, logits, targets }, {}) as tf.Tensor,
  }),
});

const crossEntropyGrad = defineOp({
  name: 'alitok.CrossEntropyGrad',
  compose: ({ dy, logits, targets }) =>
    logits.softmax().sub(tf.oneHot(targets, logits.shape[1]!)).mul(dy.expandDims(-1)),
});

/** −log softmax(logits)[target] for logits (R, N) and int32 targets (R). Gives (R). */
export function crossEntropy(logits: tf.Tensor2D, targets: tf.Tensor1D): tf.Tensor1D {
  return runCrossEntropy({ logits, targets }, {}) as tf.Tensor1D;
}

/** The largest float32. */
const LARGEST = 2 ** 128 - 2 ** 104;

const findNearestCode = defineOp({
  name: 'alitok.NearestCode',
  compose: ({ z, codebook }) => {
    // ‖e‖² − 2z·e: what all distances of a row have in common is left out.
    const products = tf.matMul(z as tf.Tensor2D, codebook as tf.Tensor2D, false, true);
    const distances = codebook.square().sum(-1).sub(products.mul(2));
    return tf.where(distances.isNaN(), Number.NEGATIVE_INFINITY, distances.maximum(-LARGEST)).argMin(-1);
  },
});

/** Exact in every precision: a product that is rounded further makes other codes of near ones. */
const runNearestCode: typeof findNearestCode = (inputs, attributes) =>
  inFloat32(() => findNearestCode(inputs, attributes));

/** At most so many distances are in memory at once (256 MiB): the clustering update compares with all processes' features. */
const MOST_DISTANCES = 2 ** 26;

/**
 * For each row of z (R, c) the index of the row of codebook (N, c) at the smallest Euclidean distance: (R) int32. A distance
 * that is NaN is smaller than all others.
 */
export function nearestCode(z: tf.Tensor2D, codebook: tf.Tensor2D): tf.Tensor1D {
  const [count, width] = z.shape;
  const together = Math.max(1, Math.floor(MOST_DISTANCES / codebook.shape[0]));
  if (count <= together) return runNearestCode({ z, codebook }, {}) as tf.Tensor1D;
  return tf.tidy(() => {
    const parts: tf.Tensor1D[] = [];
    for (let first = 0; first < count; first += together) {
      const rows = z.slice([first, 0], [Math.min(together, count - first), width]);
      parts.push(runNearestCode({ z: rows, codebook }, {}) as tf.Tensor1D);
    }
    return tf.concat1d(parts);
  });
}
