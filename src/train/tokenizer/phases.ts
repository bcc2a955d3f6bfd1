import type { Config } from '../../config/schema.js';
import { ConfigError } from '../../errors.js';
import type { Stage } from '../../models/geometry.js';
import { linearDecay } from '../../nn/schedule.js';

/** One phase of the tokenizer's recipe (config: tokenizer_training.stageN.phases). */
export interface Phase {
  steps: number;
  /** Learning rate at the start of the phase; it changes linearly to `lr_end`. */
  lr: number;
  lr_end: number;
  w_lpips: number;
  w_perc: number;
  adversarial: boolean;
  early_stop: { patience_steps: number; min_delta: number } | null;
}

/** Weight of one step in the running mean of the loss. */
const SMOOTHING = 0.01;

/** The current position in the phases of a run. */
export class PhaseSchedule {
  /** Index of the phase. */
  phase = 0;
  /** Steps done in the phase. */
  step = 0;
  private loss?: number;
  private best = Number.POSITIVE_INFINITY;
  private bestStep = 0;

  constructor(private readonly phases: readonly Phase[]) {}

  /** Number of steps, if no phase ends early. */
  get totalSteps(): number {
    return this.phases.reduce((sum, phase) => sum + phase.steps, 0);
  }

  get finished(): boolean {
    return this.phase >= this.phases.length;
  }

  get current(): Phase {
    return this.phases[this.phase];
  }

  /** The current phase's learning rate, before warm-up. */
  get lr(): number {
    const { steps, lr, lr_end } = this.current;
    return linearDecay(this.step, steps, lr, lr_end);
  }

  /**
   * Counts one step. The next phase begins after the last step of this one, or when the loss has converged. `loss` is
   * undefined for a step of the discriminator.
   */
  advance(loss: number | undefined): void {
    this.step += 1;
    const { steps, early_stop } = this.current;
    if (early_stop && loss !== undefined) {
      this.loss = this.loss === undefined ? loss : this.loss + SMOOTHING * (loss - this.loss);
      if (this.loss < this.best - early_stop.min_delta) [this.best, this.bestStep] = [this.loss, this.step];
    }
    const converged = early_stop !== null && this.step - this.bestStep >= early_stop.patience_steps;
    if (this.step < steps && !converged) return;
    this.phase += 1;
    this.step = 0;
    this.loss = undefined;
    [this.best, this.bestStep] = [Number.POSITIVE_INFINITY, 0];
  }

  /** For each phase, the state at its beginning. */
  get beginnings(): { steps: number; state: PhaseSchedule['state'] }[] {
    const fresh = new PhaseSchedule(this.phases).state;
    return this.phases.map(({ steps }, phase) => ({ steps, state: { ...fresh, phase } }));
  }

  get state() {
    const { phase, step, loss, bestStep } = this;
    return { phase, step, loss: loss ?? null, best: Number.isFinite(this.best) ? this.best : null, bestStep };
  }

  restore(state: PhaseSchedule['state']): void {
    [this.phase, this.step, this.bestStep] = [state.phase, state.step, state.bestStep];
    this.loss = state.loss ?? undefined;
    this.best = state.best ?? Number.POSITIVE_INFINITY;
  }
}

function refuse(key: string, value: number, problem: string): never {
  throw new ConfigError(`${key} is ${value}, ${problem}`);
}

/**
 * Refuses phases that could not run as configured.
 * @throws ConfigError where the warm-up is longer than all phases, early_stop waits longer than its phase, or an
 *   adversarial phase has no step for the discriminator
 */
export function checkPhases({ tokenizer_training }: Config, stage: Stage): void {
  const { phases } = tokenizer_training[`stage${stage}`];
  const { warmup_steps } = tokenizer_training;
  const total = phases.reduce((sum, { steps }) => sum + steps, 0);
  if (warmup_steps > total)
    refuse(
      'tokenizer_training.warmup_steps',
      warmup_steps,
      `but all phases of stage ${stage} are ${total} steps: their learning rates are never reached; set it lower, or give the phases more steps`,
    );
  phases.forEach(({ steps, early_stop, adversarial }, i) => {
    const key = `tokenizer_training.stage${stage}.phases.${i}`;
    if (early_stop && early_stop.patience_steps >= steps)
      refuse(
        `${key}.early_stop.patience_steps`,
        early_stop.patience_steps,
        `which can never end a phase of ${steps} steps early; set it lower, or early_stop to null`,
      );
    if (adversarial && steps < 2)
      refuse(
        `${key}.steps`,
        steps,
        'but an adversarial phase gives every second step to the discriminator; it needs 2 at least',
      );
  });
}
