import * as tf from '@tensorflow/tfjs';
import type { DrawOptions } from './draw-codes.js';
import type { Stepping } from './generator-step.js';

/** What a step of sampling on the device reads and writes. */
export interface DrawState {
  /** Which of the T steps is at hand, (1) int32. */
  position: tf.Tensor1D;
  /** Codes that the next step of the generator takes, (B) or with guidance (2·B) int32. */
  ids: tf.Tensor1D;
  /** All codes, (B, T) int32. */
  codes: tf.Tensor2D;
  /** The steps' random numbers, (T, B) in [0, 1). */
  uniforms: tf.Tensor2D;
  /** The steps' scales of guidance, (T); without guidance absent. */
  scales?: tf.Tensor1D;
}

/** Whether the engine has `drawStep`. */
export function hasDrawStep(): boolean {
  const { takesStep } = tf.backend() as Stepping;
  return takesStep?.call(tf.backend(), 1, [], 2) ?? false;
}

/**
 * Draws the codes of one step as `drawCodes` does, from logits (B, N) or, with guidance, from those with the class and then
 * without, (2·B, N), mixed by the step's scale: free + scale·(conditional − free). Writes them to `codes` and `ids`, and moves
 * the position on. All it is told by the host is how to draw. Only where `hasDrawStep`.
 */
export function drawStep(
  logits: tf.Tensor2D,
  state: DrawState,
  { temperature, top_k, top_p }: DrawOptions,
): void {
  const { scales, ...others } = state;
  const inputs = { logits, ...others, ...(scales && { scales }) };
  tf.tidy(() => void tf.engine().runKernel('alitok.DrawStep', inputs, { temperature, top_k, top_p }));
}
