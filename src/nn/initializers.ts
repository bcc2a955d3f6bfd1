import * as tf from '@tensorflow/tfjs';
import type { Random } from '../random.js';

/** Makes the initial value of a parameter of `shape`. */
export type Initializer = (shape: readonly number[], random: Random) => tf.Tensor;

function filled(shape: readonly number[], draw: () => number): tf.Tensor {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < values.length; i++) values[i] = draw();
  return tf.tensor(values, shape as number[]);
}

// `fill` makes them on the device; tfjs's `zeros` and `ones` make them in JavaScript and upload them.
export const zeros: Initializer = (shape) => tf.fill(shape as number[], 0);

export const ones: Initializer = (shape) => tf.fill(shape as number[], 1);

/** The identity, for a square matrix with trailing ones in its shape. */
export const identity: Initializer = (shape) => tf.eye(shape[0]).reshape(shape as number[]);

export function normal(std: number): Initializer {
  return (shape, random) => filled(shape, () => std * random.normal());
}

/** Normal, redrawn outside ±2 as PyTorch's `trunc_normal_` cuts it: absolute bounds, far outside at small std. */
export function truncatedNormal(std: number): Initializer {
  return (shape, random) =>
    filled(shape, () => {
      for (;;) {
        const x = std * random.normal();
        if (Math.abs(x) <= 2) return x;
      }
    });
}

/** Uniform in ±bound. */
export function uniform(bound: number): Initializer {
  return (shape, random) => filled(shape, () => bound * (2 * random.uniform() - 1));
}

/** PyTorch's default for convolutions and linear layers: uniform in ±1/√fan_in. */
export function fanIn(fan: number): Initializer {
  return uniform(1 / Math.sqrt(fan));
}

/** One fixed tensor, such as a filter kernel. */
export function constant(values: Float32Array): Initializer {
  return (shape) => tf.tensor(values, shape as number[]);
}
