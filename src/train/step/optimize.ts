import * as tf from '@tensorflow/tfjs';
import { Buckets } from '../../engine/distributed/buckets.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { ConfigError, TrainingError } from '../../errors.js';
import type { AdamW } from '../../nn/adamw.js';
import {
  accumulate,
  differentiate,
  type Gradient,
  globalNorm,
  type LossAndMore,
} from '../../nn/gradients.js';
import type { Parameter } from '../../nn/parameters.js';
import type { Metrics } from '../../run/metrics.js';

/** Keeps a norm of zero from dividing. */
const CLIP_EPSILON = 1e-6;

/** A step's batch, which `accumulation` and the processes divide: each process takes one stretch of it. */
export interface Division {
  /** Images of a micro-batch of one process. */
  micro: number;
  /** Micro-batches of one process. */
  parts: number;
  /** Where this process's stretch begins. */
  first: number;
  /** Images of that stretch. */
  own: number;
}

/** Divides the batch of a config's section, which may have no `accumulation`. Throws ConfigError where it is uneven. */
export function divide(
  section: string,
  { batch_size, accumulation }: { batch_size: number; accumulation?: number },
  { rank, size }: Group,
): Division {
  const parts = accumulation ?? 1;
  const micro = batch_size / parts / size;
  if (!Number.isInteger(micro)) {
    const accumulating = accumulation === undefined ? '' : ` with ${section}.accumulation ${accumulation}`;
    throw new ConfigError(
      `${section}.batch_size is ${batch_size}, which ${size} processes${accumulating} cannot divide evenly; make it a multiple of ${size * parts}`,
    );
  }
  const own = micro * parts;
  return { micro, parts, first: rank * own, own };
}

/**
 * Gradients of `lossOf(part)` summed over `parts` micro-batches of equal size and over all processes, and the means of
 * its scalars. `each` sees every micro-batch's results while they live. Several processes add up their gradients while
 * the last micro-batch's backward pass still goes on. All parts have the same terms.
 */
export async function sumGradients(
  trained: readonly Parameter[],
  parts: number,
  lossOf: (part: number) => LossAndMore,
  { group = ALONE, each = () => {} }: { group?: Group; each?: (result: LossAndMore) => void } = {},
): Promise<{ gradients: Gradient[]; metrics: Metrics }> {
  const metrics: Metrics = {};
  let gradients: Gradient[] | undefined;
  let names: string[] = [];
  const scalars: tf.Tensor[] = [];
  const buckets = group.size > 1 ? new Buckets(group) : undefined;
  try {
    for (let part = 0; part < parts; part++) {
      tf.tidy(() => {
        const before = gradients;
        const send = (i: number, gradient: tf.Tensor) =>
          buckets!.add(i, before?.[i]?.add(gradient) ?? gradient.clone());
        const last = buckets !== undefined && part === parts - 1;
        const { result, gradients: next } = differentiate(
          trained,
          () => lossOf(part),
          last ? send : undefined,
        );
        if (last) buckets.flush();
        else gradients = accumulate(gradients, next);
        each(result);
        names = Object.keys(result).filter((name) => result[name].rank === 0);
        scalars.push(tf.keep(tf.stack(names.map((name) => result[name].toFloat()))));
      });
    }
  } catch (error) {
    tf.dispose([gradients, scalars]);
    throw error;
  }
  // Read at the end: until then the device need not wait for anybody.
  let means = tf.tidy(() => tf.mean(tf.stack(scalars), 0));
  tf.dispose(scalars);
  if (buckets) {
    tf.dispose(gradients ?? []);
    const sum = group.allReduce([means]);
    gradients = await buckets.finish();
    const [all] = await sum();
    means.dispose();
    means = tf.tidy(() => all.div(group.size));
    all.dispose();
  }
  const values = means.dataSync();
  means.dispose();
  names.forEach((name, i) => {
    metrics[name] = values[i];
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
 * The norm of the mean of gradients summed over `accumulation` micro-batches, all processes' together. To be asked before
 * a step changes anything. Where it or a metric is not finite, disposes of the gradients and throws NonFiniteError, which
 * names this process's part of the batch.
 */
export function finiteNorm(
  gradients: Gradient[],
  accumulation: number,
  seen: Omit<Seen, 'grad_norm'>,
): number {
  const norm = globalNorm(gradients) / accumulation;
  if ([norm, ...Object.values(seen.metrics)].every(Number.isFinite)) return norm;
  tf.dispose(gradients);
  throw new NonFiniteError({ ...seen, grad_norm: norm });
}

/**
 * One optimizer step with gradients summed over `accumulation` micro-batches, all processes' together, whose mean's norm
 * is `norm`, clipped to `clip_norm` if that is not 0. Disposes of the gradients.
 */
export async function update(
  optimizer: { update(...step: Parameters<AdamW['update']>): void | Promise<void> },
  gradients: Gradient[],
  lr: number,
  { norm, accumulation, clip_norm }: { norm: number; accumulation: number; clip_norm: number },
): Promise<void> {
  const clip = clip_norm > 0 ? Math.min(1, clip_norm / (norm + CLIP_EPSILON)) : 1;
  try {
    await optimizer.update(gradients, lr, clip / accumulation);
  } finally {
    tf.dispose(gradients);
  }
}
