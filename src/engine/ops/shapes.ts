import type * as tf from '@tensorflow/tfjs';

/** The number of elements of a tensor of this shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** (…, d) → (rows, d) */
export function rows(x: tf.Tensor): tf.Tensor2D {
  const width = x.shape[x.rank - 1];
  return x.reshape([x.size / width, width]);
}
