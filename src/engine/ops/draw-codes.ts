import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

/** How a code is drawn from its logits (config section `sample`). */
export interface DrawOptions {
  /** Divides the logits; 0 takes the most likely code. */
  temperature: number;
  /** Only the so many most likely codes take part; 0 for all. */
  top_k: number;
  /** Only the most likely codes that together reach this probability take part; 1 for all. */
  top_p: number;
}

/** The first of the largest logits; NaN is larger than all others. */
function argMax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length && !Number.isNaN(logits[best]); i++)
    if (!(logits[i] <= logits[best])) best = i;
  return best;
}

/** Zeroes the weights outside the top_k largest and outside the largest that reach the share top_p of those. */
function truncate(weights: Float64Array, top_k: number, top_p: number): void {
  const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a] || a - b);
  const candidates = top_k > 0 ? order.slice(0, top_k) : order;
  const limit = top_p * candidates.reduce((sum, i) => sum + weights[i], 0);
  let sum = 0;
  const kept = new Set<number>();
  for (const i of candidates) {
    if (sum >= limit) break;
    sum += weights[i];
    kept.add(i);
  }
  for (const i of order) if (!kept.has(i)) weights[i] = 0;
}

/** Draws one index from softmax(logits / temperature), cut to top_k and then to top_p. logits (N). */
function drawOne(logits: Float32Array, { temperature, top_k, top_p }: DrawOptions, uniform: number): number {
  const best = argMax(logits);
  if (temperature === 0) return best;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - logits[best]) / temperature));
  if ((top_k > 0 && top_k < weights.length) || top_p < 1) truncate(weights, top_k, top_p);
  let remaining = uniform * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < weights.length; i++) {
    remaining -= weights[i];
    if (remaining < 0) return i;
  }
  return best; // rounding left a remainder, or the sum is NaN
}

type DrawAttributes = { temperature: number; top_k: number; top_p: number };

const run = defineOp<DrawAttributes>({
  name: 'alitok.DrawCodes',
  compose: ({ logits, uniforms }, options) => {
    const [batch, entries] = logits.shape as [number, number];
    const [values, numbers] = [logits.dataSync() as Float32Array, uniforms.dataSync()];
    const row = (b: number) => values.subarray(b * entries, (b + 1) * entries);
    return tf.tensor1d(
      Array.from({ length: batch }, (_, b) => drawOne(row(b), options, numbers[b])),
      'int32',
    );
  },
});

/**
 * Draws a code for each row of logits (B, N): from softmax(logits / temperature), cut to the top_k largest and then to
 * top_p, the first index at which the running sum exceeds the row's number of uniforms (B), in [0, 1), times the whole.
 * A row with NaN or +∞ gives the first NaN, else the first +∞. Gives (B) int32, without waiting for the device where the
 * engine has a kernel.
 */
export function drawCodes(logits: tf.Tensor2D, uniforms: tf.Tensor1D, options: DrawOptions): tf.Tensor1D {
  const { temperature, top_k, top_p } = options;
  return run({ logits, uniforms }, { temperature, top_k, top_p }) as tf.Tensor1D;
}
