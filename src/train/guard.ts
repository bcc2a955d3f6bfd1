import { join } from 'node:path';
import type { Config } from '../config/schema.js';
import { TrainingError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { MARK } from '../files/mark.js';
import type { Reporter } from '../job/reporter.js';
import { globalNorm } from '../nn/gradients.js';
import type { Metrics } from '../run/metrics.js';
import { type BadStep, NonFiniteError } from './step/non-finite.js';
import type { Trainer } from './trainer.js';

/** Makes a trainer's steps, and deals with batches whose loss or gradient is not finite as `guards` says. */
export class Guard {
  /** Steps that were skipped: in all, and without one between them that was made. */
  state = { skipped: 0, in_a_row: 0 };

  constructor(
    private readonly trainer: Trainer,
    private readonly options: {
      folder: string;
      guards: Config['guards'];
      reporter: Reporter;
      /** Whether this process writes into the run folder; of several that make the steps one does. */
      writes?: boolean;
    },
  ) {}

  /**
   * Makes the next step and gives its numbers, or skips it and gives undefined. All that was seen of a bad batch is
   * written into the run folder.
   * @throws TrainingError where the step was not made and is not to be skipped
   */
  async step(): Promise<Metrics | undefined> {
    try {
      const metrics = await this.trainer.step();
      this.state.in_a_row = 0;
      return metrics;
    } catch (error) {
      if (!(error instanceof NonFiniteError)) throw error;
      await this.skipOrStop(error);
      return undefined;
    }
  }

  /**
   * Keeps parameters that have diverged out of a checkpoint, which would take the place of a good one.
   * @throws TrainingError where they have
   */
  checkParameters(): void {
    if (Number.isFinite(globalNorm([...this.trainer.model].map((p) => p.value)))) return;
    throw new TrainingError(
      `the parameters are not finite after step ${this.trainer.steps}; no checkpoint was written and the newest stays: lower the learning rate, or set clip_norm`,
    );
  }

  /** How many steps were skipped, if any was. */
  get metrics(): Metrics {
    return this.state.skipped > 0 ? { skipped_steps: this.state.skipped } : {};
  }

  private async skipOrStop(error: NonFiniteError): Promise<void> {
    const { folder, guards, reporter, writes = true } = this.options;
    const { step } = error.seen;
    const file = join(folder, `nonfinite-${String(step).padStart(7, '0')}.json`);
    if (writes) await writeFileAtomic(file, describe(error.seen));
    if (guards.on_nonfinite === 'stop')
      throw new TrainingError(
        `${error.message}; all of it is in ${file}, and the newest checkpoint stays: lower the learning rate, set clip_norm, or pass over such batches by guards.on_nonfinite=skip`,
        { cause: error },
      );
    this.state = { skipped: this.state.skipped + 1, in_a_row: this.state.in_a_row + 1 };
    if (this.state.in_a_row > guards.max_skipped)
      throw new TrainingError(
        `${error.message}; ${guards.max_skipped} batches before it were skipped (guards.max_skipped), so it is not the batch that is bad, and the newest checkpoint stays: lower the learning rate, or set clip_norm`,
        { cause: error },
      );
    reporter.warn(`${error.message}; it is skipped, and all of it is in ${file}`);
    this.trainer.skip();
  }
}

/** As JSON, with numbers that JSON does not have as texts. */
function describe(seen: BadStep): string {
  const readable = (_: string, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
  return `${JSON.stringify({ software: MARK, ...seen }, readable, 2)}\n`;
}
