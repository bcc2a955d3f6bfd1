import * as tf from '@tensorflow/tfjs';
import { defineOp, rows } from './define.js';

const run = defineOp({
  name: 'alitok.Linear',
  compose: ({ x, weight, bias }) => {
    const y = tf.matMul(rows(x), weight as tf.Tensor2D, false, true);
    return (bias ? y.add(bias) : y).reshape([...x.shape.slice(0, -1), weight.shape[0]]);
  },
  save: ['x', 'weight'],
  gradient: (dy, { x, weight }) => {
    const dyRows = rows(dy);
    return {
      x: tf.matMul(dyRows, weight as tf.Tensor2D).reshape(x.shape),
      weight: tf.matMul(dyRows, rows(x), true, false),
      bias: dyRows.sum(0),
    };
  },
});

/** y = x·weightᵀ + bias, for x (…, in), weight (out, in) as PyTorch keeps it, bias (out). Gives (…, out). */
export function linear(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor): tf.Tensor {
  return run({ x, weight, bias }, {}) as tf.Tensor;
}
