import * as tf from '@tensorflow/tfjs';
import { defineOp, type Op } from './define.js';

/** The 32-bit hash of (index, seed) that decides every dropout, the same in all engines. */
function hash(index: number, seed: number): number {
  let h = (index + Math.imul(seed, 0x9e3779b1)) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The inverse of the hash's factor of the seed, 0x9e3779b1, modulo 2³². */
const INVERSE = 0xe8b2f51;

/**
 * The seed whose draws begin with those of element `offset` of `seed`. So a part of a batch is dropped as it is in the
 * whole, whoever computes it.
 */
export function seedAt(seed: number, offset: number): number {
  return (seed + Math.imul(offset, INVERSE)) >>> 0;
}

/** 1/(1−rate) where element i is kept, 0 where it is dropped: kept if hash(i, seed) ≥ rate·2³². */
export function dropoutMask(shape: number[], rate: number, seed: number): tf.Tensor {
  const threshold = Math.floor(rate * 2 ** 32);
  const mask = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < mask.length; i++) mask[i] = hash(i, seed) >= threshold ? 1 / (1 - rate) : 0;
  return tf.tensor(mask, shape);
}

/** `rounds`: whether x is of a layer, so that result and gradient may be in the precision that layers multiply. */
type DropoutAttributes = { rate: number; seed: number; rounds: boolean };

const run: Op<DropoutAttributes> = defineOp<DropoutAttributes>({
  name: 'alitok.Dropout',
  compose: ({ x }, { rate, seed }) => x.mul(dropoutMask(x.shape, rate, seed)),
  gradient: (dy, _, attributes) => ({ x: run({ x: dy }, attributes) as tf.Tensor }),
});

/**
 * Multiplies each element by zero with probability `rate`, and the others by 1/(1−rate). Of a layer's result, `rounds`, an engine
 * may give it, and its gradient, in the precision that layers multiply.
 */
export function dropout(x: tf.Tensor, rate: number, seed: number, { rounds = false } = {}): tf.Tensor {
  return run({ x }, { rate, seed, rounds }) as tf.Tensor;
}
