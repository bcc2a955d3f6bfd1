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

/** Makes a trainer's steps, and stops or skips at a batch whose loss or gradient is not finite (config section `guards`). */
export class Guard {
  /** Number of skipped steps: in all, and in a row. */
  state = { skipped: 0, in_a_row: 0 };

  constructor(
    private readonly trainer: Trainer,
    private readonly options: {
      folder: string;
      guards: Config['guards'];
      reporter: Reporter;
      /** Whether this process writes into the run folder. */
      writes?: boolean;
    },
  ) {}

  /**
   * Makes the next step and gives its metrics, or skips it and gives undefined. What is known of a bad batch is written to
   * the run folder.
   * @throws TrainingError where the step was not made and must not be skipped
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
   * Prevents a checkpoint of diverged parameters, which would replace a good one.
   * @throws TrainingError where a parameter is not finite
   */
  checkParameters(): void {
    if (Number.isFinite(globalNorm([...this.trainer.model].map((p) => p.value)))) return;
    throw new TrainingError(
      `the parameters are not finite after step ${this.trainer.steps}; no checkpoint was written and the newest stays: lower the learning rate, or set clip_norm`,
    );
  }

  /** Number of skipped steps, if any. */
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
        `${error.message}; details are in ${file}, and the newest checkpoint stays: lower the learning rate, set clip_norm, or skip such batches with guards.on_nonfinite=skip`,
        { cause: error },
      );
    this.state = { skipped: this.state.skipped + 1, in_a_row: this.state.in_a_row + 1 };
    if (this.state.in_a_row > guards.max_skipped)
      throw new TrainingError(
        `${error.message}; the ${guards.max_skipped} batches before it were skipped too (guards.max_skipped), so the batch is not the cause, and the newest checkpoint stays: lower the learning rate, or set clip_norm`,
        { cause: error },
      );
    reporter.warn(`${error.message}; it is skipped, and details are in ${file}`);
    this.trainer.skip();
  }
}

/** As JSON, with infinities and NaN as strings. */
function describe(seen: BadStep): string {
  const readable = (_: string, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
  return `${JSON.stringify({ software: MARK, ...seen }, readable, 2)}\n`;
}
