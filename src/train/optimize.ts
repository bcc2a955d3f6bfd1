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

/** What a step saw that could not be made. */
export interface Seen {
  step: number;
  lr: number;
  /** Loss terms and other numbers of the batch. */
  metrics: Metrics;
  grad_norm: number;
  /** The images it is made of: files of a data set, or images and crops of a token cache. */
  batch: Record<string, readonly (string | number)[]>;
}

/** A batch whose loss or gradient is not finite. The step was not made, nothing but the position in the data moved. */
export class NonFiniteError extends TrainingError {
  constructor(readonly seen: Seen) {
    const { step, lr, metrics, grad_norm, batch } = seen;
    const numbers = Object.entries({ ...metrics, 'gradient norm': grad_norm, 'learning rate': lr });
    const said = numbers.map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`).join(', ');
    const of = Object.entries(batch).map(([name, all]) => {
      const more = all.length > SHOWN ? `, … (${all.length} in all)` : '';
      return `${name} ${all.slice(0, SHOWN).join(', ')}${more}`;
    });
    super(`step ${step} was not made: loss or gradient is not finite (${said}; ${of.join('; ')})`);
  }
}

/** How many of a batch's images a message names. */
const SHOWN = 4;

/**
 * The norm of the mean of gradients summed over `accumulation` micro-batches. To be asked before a step changes
 * anything. Where it or a metric is not finite, disposes of the gradients and throws NonFiniteError.
 */
export function finiteNorm(
  gradients: tf.Tensor[],
  accumulation: number,
  seen: Omit<Seen, 'grad_norm'>,
): number {
  const norm = globalNorm(gradients) / accumulation;
  if ([norm, ...Object.values(seen.metrics)].every(Number.isFinite)) return norm;
  tf.dispose(gradients);
  throw new NonFiniteError({ ...seen, grad_norm: norm });
}

/**
 * One optimizer step with gradients summed over `accumulation` micro-batches, whose mean's norm is `norm`, clipped to
 * `clip_norm` if that is not 0. Disposes of the gradients.
 */
export function update(
  optimizer: AdamW,
  gradients: tf.Tensor[],
  lr: number,
  { norm, accumulation, clip_norm }: { norm: number; accumulation: number; clip_norm: number },
): void {
  const clip = clip_norm > 0 ? Math.min(1, clip_norm / (norm + CLIP_EPSILON)) : 1;
  optimizer.update(gradients, lr, clip / accumulation);
  tf.dispose(gradients);
}
