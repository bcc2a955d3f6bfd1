import type * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

const geluGrad = defineOp({
  name: 'alitok.GeluGrad',
  inputs: ['dy', 'x'],
  compose: ({ dy, x }) => {
    const density = x
      .square()
      .mul(-0.5)
      .exp()
      .mul(1 / Math.sqrt(2 * Math.PI));
    return dy.mul(normalCdf(x).add(x.mul(density)));
  },
});

export const geluOp = defineOp({
  name: 'alitok.Gelu',
  inputs: ['x'],
  compose: ({ x }) => x.mul(normalCdf(x)),
  save: ['x'],
  backward: geluGrad,
  gradient: ['x'],
});

function normalCdf(x: tf.Tensor): tf.Tensor {
  return x.mul(Math.SQRT1_2).erf().add(1).mul(0.5);
}

/** Exact GELU, x·Φ(x). Any shape. */
export function gelu(x: tf.Tensor): tf.Tensor {
  return geluOp({ x });
}

const swiGLUGrad = defineOp({
  name: 'alitok.SwiGLUGrad',
  inputs: ['dy', 'gate', 'value'],
  compose: ({ dy, gate, value }) => {
    const sigmoid = gate.sigmoid();
    const silu = gate.mul(sigmoid);
    // d silu/dx = σ + silu·(1 − σ)
    const slope = sigmoid.add(silu.mul(sigmoid.neg().add(1)));
    return [dy.mul(value).mul(slope), dy.mul(silu)];
  },
});

export const swiGLUOp = defineOp({
  name: 'alitok.SwiGLU',
  inputs: ['gate', 'value'],
  compose: ({ gate, value }) => gate.mul(gate.sigmoid()).mul(value),
  save: ['gate', 'value'],
  backward: swiGLUGrad,
  gradient: ['gate', 'value'],
});

/** silu(gate)·value, elementwise; both of one shape. */
export function swiGLU(gate: tf.Tensor, value: tf.Tensor): tf.Tensor {
  return swiGLUOp({ gate, value });
}
