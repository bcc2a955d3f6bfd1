import type * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

const runGelu = defineOp({
  name: 'alitok.Gelu',
  compose: ({ x }) => x.mul(normalCdf(x)),
  save: ['x'],
  gradient: (dy, { x }) => ({ x: geluGrad({ dy, x }, {}) as tf.Tensor }),
});

const geluGrad = defineOp({
  name: 'alitok.GeluGrad',
  compose: ({ dy, x }) => {
    const density = x
      .square()
      .mul(-0.5)
      .exp()
      .mul(1 / Math.sqrt(2 * Math.PI));
    return dy.mul(normalCdf(x).add(x.mul(density)));
  },
});

function normalCdf(x: tf.Tensor): tf.Tensor {
  return x.mul(Math.SQRT1_2).erf().add(1).mul(0.5);
}

/** Exact GELU, x·Φ(x). Any shape. */
export function gelu(x: tf.Tensor): tf.Tensor {
  return runGelu({ x }, {}) as tf.Tensor;
}

const runSwiGLU = defineOp({
  name: 'alitok.SwiGLU',
  compose: ({ gate, value }) => gate.mul(gate.sigmoid()).mul(value),
  save: ['gate', 'value'],
  gradient: (dy, { gate, value }) => {
    const [dgate, dvalue] = swiGLUGrad({ dy, gate, value }, {}) as tf.Tensor[];
    return { gate: dgate, value: dvalue };
  },
});

const swiGLUGrad = defineOp({
  name: 'alitok.SwiGLUGrad',
  compose: ({ dy, gate, value }) => {
    const sigmoid = gate.sigmoid();
    const silu = gate.mul(sigmoid);
    // d silu/dx = σ + silu·(1 − σ)
    const slope = sigmoid.add(silu.mul(sigmoid.neg().add(1)));
    return [dy.mul(value).mul(slope), dy.mul(silu)];
  },
});

/** silu(gate)·value, elementwise; both of one shape. */
export function swiGLU(gate: tf.Tensor, value: tf.Tensor): tf.Tensor {
  return runSwiGLU({ gate, value }, {}) as tf.Tensor;
}
