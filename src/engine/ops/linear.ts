import * as tf from '@tensorflow/tfjs';
import { defineOp, rows } from './define.js';

const run = defineOp<{ biased: boolean }>({
  name: 'alitok.Linear',
  compose: ({ x, weight, bias }) => {
    const y = tf.matMul(rows(x), weight as tf.Tensor2D, false, true);
    return (bias ? y.add(bias) : y).reshape([...x.shape.slice(0, -1), weight.shape[0]]);
  },
  save: ['x', 'weight'],
  gradient: (dy, { x, weight }, { biased }) => {
    const dyRows = rows(dy);
    const [dx, dweight] = linearGrad({ dy: dyRows, x, weight }, {}) as tf.Tensor[];
    return { x: dx.reshape(x.shape), weight: dweight, ...(biased && { bias: dyRows.sum(0) }) };
  },
});

const linearGrad = defineOp({
  name: 'alitok.LinearGrad',
  compose: ({ dy, x, weight }) => [
    tf.matMul(dy as tf.Tensor2D, weight as tf.Tensor2D),
    tf.matMul(dy as tf.Tensor2D, rows(x), true, false),
  ],
});

/** y = x·weightᵀ + bias, for x (…, in), weight (out, in) as PyTorch keeps it, bias (out). Gives (…, out). */
export function linear(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor): tf.Tensor {
  return run({ x, weight, bias }, { biased: bias !== undefined }) as tf.Tensor;
}
