import type * as tf from '@tensorflow/tfjs';

/** (…, d) → (rows, d) */
export function rows(x: tf.Tensor): tf.Tensor2D {
  const width = x.shape[x.rank - 1];
  return x.reshape([x.size / width, width]);
}
