import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { saveCheckpoint } from '../checkpoint/training-checkpoint.js';
import type { Config } from '../config/schema.js';
import { Interrupted } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import type { Reporter } from '../job/reporter.js';
import { turn } from '../job/turn.js';
import type { MetricsLog } from './metrics-log.js';
import type { Metrics, Trainer } from './trainer.js';

/** What was learned so far on held-out data: numbers for the metrics log, and PNG pictures by name. */
export type Preview = () => Promise<{ metrics: Metrics; pictures: Record<string, Buffer> }>;

export interface LoopOptions {
  label: string;
  /** The run folder. */
  folder: string;
  logging: Config['logging'];
  metrics: MetricsLog;
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
  const { folder, logging, metrics, reporter, signal, preview } = options;
  const means = new Means();
  const { steps: start, totalSteps: total } = trainer;
  const progress = reporter.progress({ label: options.label, total, unit: 'steps', start });
  const checkpoint = () => saveCheckpoint(folder, trainer, logging.keep_checkpoints);
  let saved = trainer.steps;
  let started = performance.now();
  let startedAt = trainer.steps;
  let waited = 0;
  try {
    while (!trainer.finished) {
      const last = await trainer.step();
      waited += trainer.waited;
      await turn();
      means.add(last);
      const due = (every: number) => trainer.steps % every === 0 || trainer.finished;
      if (due(logging.metrics_every)) {
        const passed = performance.now() - started;
        const pace = {
          steps_per_second: (1000 * (trainer.steps - startedAt)) / passed,
          data_wait: waited / passed,
        };
        const row = { ...withStates(means.take(), last), ...trainer.summary?.(), ...pace };
        await metrics.append({ step: trainer.steps, ...row });
        progress.update(trainer.steps, shown(row));
        started = performance.now();
        startedAt = trainer.steps;
        waited = 0;
      } else progress.update(trainer.steps);
      if (preview && due(logging.images_every)) {
        const { metrics: measured, pictures } = await preview();
        await metrics.append({ step: trainer.steps, ...measured });
        await savePictures(join(folder, 'images'), trainer.steps, pictures);
        started = performance.now();
        startedAt = trainer.steps;
        waited = 0;
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

async function savePictures(folder: string, step: number, pictures: Record<string, Buffer>): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw outputError(folder, error);
  }
  for (const [name, png] of Object.entries(pictures))
    await writeFileAtomic(join(folder, `${name}-${String(step).padStart(7, '0')}.png`), png);
}
