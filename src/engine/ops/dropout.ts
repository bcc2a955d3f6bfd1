import * as tf from '@tensorflow/tfjs';
import { sizeOf } from '../../shapes.js';
import { defineOp, type Operation } from './define.js';

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
 * The seed whose draws begin where element `offset` of `seed` has its own. With it a part of a batch is dropped as it is in
 * the whole batch, whichever process computes it.
 */
export function seedAt(seed: number, offset: number): number {
  return (seed + Math.imul(offset, INVERSE)) >>> 0;
}

/** 1/(1−rate) where element i is kept, 0 where it is dropped: kept if hash(i, seed) ≥ rate·2³². */
export function dropoutMask(shape: number[], rate: number, seed: number): tf.Tensor {
  const threshold = Math.floor(rate * 2 ** 32);
  const mask = new Float32Array(sizeOf(shape));
  for (let i = 0; i < mask.length; i++) mask[i] = hash(i, seed) >= threshold ? 1 / (1 - rate) : 0;
  return tf.tensor(mask, shape);
}

/** `rounds`: x comes from a layer, so the result and the gradient may be in the precision that layers multiply in. */
type DropoutAttributes = { rate: number; seed: number; rounds: boolean };

export const dropoutOp: Operation<'x', DropoutAttributes, tf.Tensor> = defineOp({
  name: 'alitok.Dropout',
  inputs: ['x'],
  compose: ({ x }, { rate, seed }: DropoutAttributes): tf.Tensor => x.mul(dropoutMask(x.shape, rate, seed)),
  gradient: (dy, _, attributes) => ({ x: dropoutOp({ x: dy }, attributes) }),
});

/**
 * Multiplies each element by zero with probability `rate`, and the others by 1/(1−rate). With `rounds`, for the result of a
 * layer, the engine may return the result and its gradient in the precision that layers multiply in.
 */
export function dropout(x: tf.Tensor, rate: number, seed: number, { rounds = false } = {}): tf.Tensor {
  return dropoutOp({ x }, { rate, seed, rounds });
}
