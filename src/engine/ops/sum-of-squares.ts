import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

const run = defineOp({
  name: 'alitok.SumOfSquares',
  compose: (inputs) => tf.addN(Object.values(inputs).map((x) => x.square().sum())),
});

/** Σ x² over all elements of all tensors, a scalar. */
export function sumOfSquares(tensors: readonly tf.Tensor[]): tf.Scalar {
  return run(Object.fromEntries(tensors.map((x, i) => [`x${i}`, x])), {}) as tf.Scalar;
}
