import * as tf from '@tensorflow/tfjs';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import type { AdamWOptions } from '../../nn/adamw.js';
import { type Gradient, globalNorm, type LossAndMore } from '../../nn/gradients.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';
import type { Metrics } from '../../run/metrics.js';
import type { Division } from './division.js';
import { sumGradients } from './gradients.js';
import { type BadStep, NonFiniteError } from './non-finite.js';
import { GroupAdamW } from './sharded-adamw.js';

/** Keeps a gradient norm of zero from dividing. */
const CLIP_EPSILON = 1e-6;

export interface OptimizationOptions extends AdamWOptions {
  /** Largest norm of the gradient; 0 for no limit. */
  clip_norm: number;
  /** Whether each process keeps the moments of its part of the parameters only. */
  shard_optimizer?: boolean;
}

export interface Step {
  /** The number of this step, from 1, for messages. */
  step: number;
  lr: number;
  /** The loss of one micro-batch, and other scalars to average over the batch. */
  loss: (part: number) => LossAndMore;
  /** This process's part of the batch, asked for where the step cannot be made. */
  batch: () => BadStep['batch'];
  /** Scalars that may be infinite although all is well. */
  unbounded?: readonly string[];
  /** Called with the results of each micro-batch before they are freed. */
  onResult?: (result: LossAndMore) => void;
  /** Called once the step is known to be sound, before the parameters change. */
  beforeUpdate?: (metrics: Metrics) => void | Promise<void>;
}

/** AdamW on the parameters of one loss, whose batches are divided among micro-batches and processes. */
export class Optimization {
  private readonly optimizer: GroupAdamW;

  constructor(
    private readonly parameters: readonly Parameter[],
    private readonly division: Pick<Division, 'parts'>,
    private readonly options: OptimizationOptions,
    private readonly group: Group = ALONE,
  ) {
    this.optimizer = new GroupAdamW(parameters, options, group, options.shard_optimizer);
  }

  /** Moments zero, as a new run starts. */
  initialize(): void {
    this.optimizer.initialize();
  }

  /**
   * One step: the gradient g of the mean loss over the batch, clipped to g·min(1, clip_norm / ‖g‖), then AdamW. Gives the
   * means of the loss's scalars, and ‖g‖ as `grad_norm`.
   * @throws NonFiniteError before anything changes, where a scalar or ‖g‖ is not finite
   */
  async step({ step, lr, loss, batch, unbounded = [], onResult, beforeUpdate }: Step): Promise<Metrics> {
    const { parameters, options, group } = this;
    const { parts } = this.division;
    const { gradients, metrics } = await sumGradients(parameters, parts, loss, { group, onResult });
    try {
      const summed = parts * group.size;
      const norm = globalNorm(gradients) / summed;
      const bounded = Object.entries(metrics).filter(([name]) => !unbounded.includes(name));
      if (![norm, ...bounded.map(([, value]) => value)].every(Number.isFinite))
        throw new NonFiniteError({
          ...{ step, lr, metrics: Object.fromEntries(bounded) },
          ...{ grad_norm: norm, batch: batch() },
        });
      await beforeUpdate?.(metrics);
      const clip = options.clip_norm > 0 ? Math.min(1, options.clip_norm / (norm + CLIP_EPSILON)) : 1;
      await this.optimizer.update(gradients, lr, clip / summed);
      return { ...metrics, grad_norm: norm };
    } finally {
      tf.dispose(gradients as Gradient[]);
    }
  }

  /** Gives rank 0 the moments of all processes, for a checkpoint. */
  gather(): Promise<void> {
    return this.optimizer.gather();
  }

  /** Frees the moments that belong to other processes. */
  release(): void {
    this.optimizer.release();
  }

  /** The moments; after `gather` all of them on rank 0. */
  get state(): Parameters {
    return this.optimizer.state;
  }

  /** Steps done. */
  get steps(): number {
    return this.optimizer.steps;
  }

  set steps(steps: number) {
    this.optimizer.steps = steps;
  }
}
