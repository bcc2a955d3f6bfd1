import { saveCheckpoint } from '../checkpoint/training-checkpoint.js';
import type { Config } from '../config/schema.js';
import { Interrupted } from '../errors.js';
import type { Reporter } from '../job/reporter.js';
import { turn } from '../job/turn.js';
import type { RunRecord, Shown } from './run-record.js';
import type { Metrics, Trainer } from './trainer.js';

/** Shows what was learned so far on held-out data. */
export type Preview = () => Promise<Shown>;

export interface LoopOptions {
  label: string;
  /** The run folder. */
  folder: string;
  logging: Config['logging'];
  record: RunRecord;
  reporter: Reporter;
  /** Aborted by Ctrl-C: the loop saves and ends with Interrupted. */
  signal: AbortSignal;
  preview?: Preview;
}

/** Means of the numbers of several steps. */
class Means {
  private sums = new Map<string, { sum: number; count: number }>();

  add(metrics: Metrics): void {
    for (const [name, value] of Object.entries(metrics)) {
      const entry = this.sums.get(name) ?? { sum: 0, count: 0 };
      this.sums.set(name, { sum: entry.sum + value, count: entry.count + 1 });
    }
  }

  take(): Metrics {
    const means = [...this.sums].map(([name, { sum, count }]) => [name, sum / count]);
    this.sums.clear();
    return Object.fromEntries(means);
  }
}

/** Phase and learning rate are states, not things to average. */
function withStates(means: Metrics, last: Metrics): Metrics {
  const states = ['phase', 'lr'].filter((name) => name in last).map((name) => [name, last[name]]);
  return { ...means, ...Object.fromEntries(states) };
}

/**
 * Runs a trainer to its end: steps, metrics every `logging.metrics_every` steps, previews, checkpoints.
 * @throws Interrupted after saving, when the signal is aborted
 * @throws OutputError where a checkpoint or picture cannot be written; the ones before stay
 */
export async function train(trainer: Trainer, options: LoopOptions): Promise<void> {
  const { folder, logging, record, reporter, signal, preview } = options;
  const means = new Means();
  const { steps: start, totalSteps: total } = trainer;
  const progress = reporter.progress({ label: options.label, total, unit: 'steps', start });
  const checkpoint = () => saveCheckpoint(folder, trainer, logging.keep_checkpoints);
  let saved = trainer.steps;
  let started = performance.now();
  let startedAt = trainer.steps;
  try {
    while (!trainer.finished) {
      const last = await trainer.step();
      await turn();
      means.add(last);
      const due = (every: number) => trainer.steps % every === 0 || trainer.finished;
      if (due(logging.metrics_every)) {
        const rate = (1000 * (trainer.steps - startedAt)) / (performance.now() - started);
        const row = { ...withStates(means.take(), last), ...trainer.summary?.(), steps_per_second: rate };
        await record.append({ step: trainer.steps, ...row });
        progress.update(trainer.steps, shown(row));
        started = performance.now();
        startedAt = trainer.steps;
      } else progress.update(trainer.steps);
      if (preview && due(logging.images_every)) {
        await record.show(trainer.steps, await preview());
        started = performance.now();
        startedAt = trainer.steps;
      }
      if (due(logging.checkpoint_every)) {
        await checkpoint();
        saved = trainer.steps;
      }
      if (signal.aborted && !trainer.finished) {
        if (saved !== trainer.steps) await checkpoint();
        throw new Interrupted(
          `stopped at step ${trainer.steps}, which is saved in ${folder}; go on with --resume`,
        );
      }
    }
  } finally {
    progress.stop();
  }
}

/** What stands beside the progress bar. */
function shown(row: Metrics): Record<string, number> {
  const names = ['loss', 'psnr', 'accuracy', 'codebook_usage'];
  return Object.fromEntries(names.filter((name) => name in row).map((name) => [name, row[name]]));
}
