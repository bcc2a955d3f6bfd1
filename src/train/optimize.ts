import * as tf from '@tensorflow/tfjs';
import { TrainingError } from '../errors.js';
import type { AdamW } from '../nn/adamw.js';
import { accumulate, differentiate, globalNorm, type LossAndMore } from '../nn/gradients.js';
import type { Parameter } from '../nn/parameters.js';
import type { Metrics } from './trainer.js';

/** Keeps a norm of zero from dividing. */
const CLIP_EPSILON = 1e-6;

/**
 * Gradients of `lossOf(part)` summed over `parts` micro-batches of equal size, and the means of its scalars.
 * `each` sees every micro-batch's results while they live.
 */
export function sumGradients(
  trained: readonly Parameter[],
  parts: number,
  lossOf: (part: number) => LossAndMore,
  each: (result: LossAndMore) => void = () => {},
): { gradients: tf.Tensor[]; metrics: Metrics } {
  const metrics: Metrics = {};
  let gradients: tf.Tensor[] | undefined;
  let names: string[] = [];
  const scalars: tf.Tensor[] = [];
  for (let part = 0; part < parts; part++) {
    tf.tidy(() => {
      const { result, gradients: next } = differentiate(trained, () => lossOf(part));
      gradients = accumulate(gradients, next);
      each(result);
      names = Object.keys(result).filter((name) => result[name].rank === 0);
      scalars.push(tf.keep(tf.stack(names.map((name) => result[name].toFloat()))));
    });
  }
  // Read at the end: until then the device need not wait for anybody.
  const means = tf.tidy(() => tf.mean(tf.stack(scalars), 0).dataSync());
  tf.dispose(scalars);
  names.forEach((name, i) => {
    metrics[name] = means[i];
  });
  return { gradients: gradients!, metrics };
}

/**
 * One optimizer step with gradients summed over `accumulation` micro-batches, clipped to `clip_norm` if that is not 0.
 * Disposes of the gradients; gives the norm of their mean before clipping.
 * @throws TrainingError before the step, if that norm is not finite
 */
export function update(
  optimizer: AdamW,
  gradients: tf.Tensor[],
  lr: number,
  { accumulation, clip_norm }: { accumulation: number; clip_norm: number },
): number {
  const norm = globalNorm(gradients) / accumulation;
  if (!Number.isFinite(norm)) {
    tf.dispose(gradients);
    throw new TrainingError(
      'the gradient is not finite; the step was not made and the newest checkpoint stays: lower the learning rate, or set clip_norm',
    );
  }
  const clip = clip_norm > 0 ? Math.min(1, clip_norm / (norm + CLIP_EPSILON)) : 1;
  optimizer.update(gradients, lr, clip / accumulation);
  tf.dispose(gradients);
  return norm;
}
