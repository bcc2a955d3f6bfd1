import * as tf from '@tensorflow/tfjs';
import { defineKernel, defineOp } from './define.js';
import type { Stepping } from './generator-step.js';

/** How a code is drawn from its logits (config section `sample`). */
export interface DrawOptions {
  /** Divides the logits; 0 takes the most likely code. */
  temperature: number;
  /** Draws only from this many most likely codes; 0 for all. */
  top_k: number;
  /** Draws only from the most likely codes that together reach this probability; 1 for all. */
  top_p: number;
}

/** The index of the first largest logit; NaN counts as the largest. */
function argMax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length && !Number.isNaN(logits[best]); i++)
    if (!(logits[i] <= logits[best])) best = i;
  return best;
}

/** Zeroes all weights but the top_k largest, and of those all but the largest that reach the share top_p of their sum. */
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

export const drawCodesOp = defineOp({
  name: 'alitok.DrawCodes',
  inputs: ['logits', 'uniforms'],
  compose: ({ logits, uniforms }, options: DrawOptions): tf.Tensor => {
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
 * Draws a code for each row of logits (B, N) from softmax(logits / temperature), cut to the top_k largest and then to top_p:
 * the first index at which the running sum exceeds uniforms (B), in [0, 1), times the whole sum.
 * A row with NaN or +∞ gives the first NaN, else the first +∞. Returns (B) int32; an engine with a kernel does not wait for
 * the device.
 */
export function drawCodes(logits: tf.Tensor2D, uniforms: tf.Tensor1D, options: DrawOptions): tf.Tensor1D {
  const { temperature, top_k, top_p } = options;
  return drawCodesOp({ logits, uniforms }, { temperature, top_k, top_p }) as tf.Tensor1D;
}

/** What a step of sampling on the device reads and writes. */
export interface DrawState {
  /** The index of the current step of T, (1) int32. */
  position: tf.Tensor1D;
  /** The codes that the generator's next step reads, (B) or with guidance (2·B) int32. */
  ids: tf.Tensor1D;
  /** All codes, (B, T) int32. */
  codes: tf.Tensor2D;
  /** The random numbers of all steps, (T, B) in [0, 1). */
  uniforms: tf.Tensor2D;
  /** The guidance scales of all steps, (T); absent without guidance. */
  scales?: tf.Tensor1D;
}

/** Whether the engine has `drawStep`. */
export function hasDrawStep(): boolean {
  const { takesStep } = tf.backend() as Stepping;
  return takesStep?.call(tf.backend(), 1, [], 2) ?? false;
}

export const drawStepOp = defineKernel<
  'logits' | 'position' | 'ids' | 'codes' | 'uniforms' | 'scales?',
  DrawOptions,
  tf.Tensor
>({
  name: 'alitok.DrawStep',
  inputs: ['logits', 'position', 'ids', 'codes', 'uniforms', 'scales?'],
  instead: 'the sampler draws with `drawCodes`',
});

/**
 * Draws the codes of one step as `drawCodes` does. Without guidance logits are (B, N); with it they are (2·B, N), first those
 * with the class and then those without, and are mixed by the step's scale: free + scale·(conditional − free). Writes the codes
 * to `codes` and `ids` and advances the position, without any number from the host. Needs `hasDrawStep`.
 */
export function drawStep(
  logits: tf.Tensor2D,
  state: DrawState,
  { temperature, top_k, top_p }: DrawOptions,
): void {
  tf.tidy(() => void drawStepOp({ logits, ...state }, { temperature, top_k, top_p }));
}
