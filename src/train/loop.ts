import type { Config } from '../config/schema.js';
import { ALONE, type Group } from '../engine/distributed/group.js';
import { memoryInUse, watchMemory } from '../engine/measurements.js';
import { Interrupted, option } from '../errors.js';
import { turn } from '../job/job.js';
import type { Reporter } from '../job/reporter.js';
import { type CheckpointNote, saveCheckpoint } from '../run/checkpoint.js';
import type { RunLog, Shown } from '../run/log.js';
import type { Metrics, Timing } from '../run/metrics.js';
import { pruneCheckpoints } from '../run/retention.js';
import { formatBytes } from '../text.js';
import { Guard } from './guard.js';
import type { Trainer } from './trainer.js';

/** Shows the progress of the model on held-out data. */
export type Preview = () => Promise<Shown>;

/** Sums are text, since JSON has neither infinities nor NaN. */
type MeansState = [name: string, sum: string, count: number][];

/** Means of metrics over several steps. */
export class Means {
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

  get state(): MeansState {
    return [...this.sums].map(([name, { sum, count }]) => [name, String(sum), count]);
  }

  restore(state: MeansState): void {
    this.sums = new Map(state.map(([name, sum, count]) => [name, { sum: Number(sum), count }]));
  }
}

/** What the loop itself carries from step to step. */
interface LoopState {
  means: MeansState;
  guard: Guard['state'];
}

export interface LoopOptions {
  label: string;
  /** The run folder. */
  folder: string;
  config: Pick<Config, 'logging' | 'guards'>;
  log: RunLog;
  reporter: Reporter;
  /** Aborted by Ctrl-C: the loop saves and ends with Interrupted. */
  signal: AbortSignal;
  preview?: Preview;
  /** Of the checkpoint that the run resumes from. */
  from?: CheckpointNote;
  /** Called before each checkpoint; throws if this process has lost the lock of the run folder. */
  mayWrite?: () => Promise<void>;
  /** The processes that train together: rank 0 saves, and all stop when one of them is interrupted. */
  group?: Group;
}

/** Phase and learning rate are those of the last step, not averaged. */
function withStates(means: Metrics, last: Metrics): Metrics {
  const states = ['phase', 'lr'].filter((name) => name in last).map((name) => [name, last[name]]);
  return { ...means, ...Object.fromEntries(states) };
}

/** Speed of the steps, without previews and checkpoints, and the share of their time spent waiting for data. */
class Pace {
  private started = performance.now();
  /** Milliseconds that steps waited for data. */
  waited = 0;

  constructor(private startedAt: number) {}

  restart(step: number): void {
    this.started = performance.now();
    this.startedAt = step;
    this.waited = 0;
  }

  at(step: number): Timing {
    const passed = performance.now() - this.started;
    return { steps_per_second: (1000 * (step - this.startedAt)) / passed, data_wait: this.waited / passed };
  }
}

/** How fast steps are, and how much of their time they wait for data, as one line. */
function waitText(step: number, { steps_per_second, data_wait }: Timing): string {
  return `step ${step}: ${Number(steps_per_second?.toPrecision(3))} steps/s, ${(100 * data_wait!).toFixed(1)} % of the time spent waiting for data`;
}

/** Memory in use now, and the peak since the training loop began, as one line. */
function memoryText(step: number, peak: number): string {
  const { process, tensors, bytes } = memoryInUse();
  return `step ${step}: peak ${formatBytes(peak)}; now ${formatBytes(process)} of the process, ${tensors} tensors of ${formatBytes(bytes)}`;
}

/**
 * Runs a trainer to its end: steps, metrics every `logging.metrics_every` steps, previews, checkpoints.
 * @throws Interrupted after saving, when the signal is aborted
 * @throws TrainingError where training cannot continue; the newest checkpoint stays
 * @throws OutputError where a checkpoint or picture cannot be written; earlier ones stay
 */
export async function train(trainer: Trainer, options: LoopOptions): Promise<void> {
  const { folder, config, log, reporter, signal, preview, from, mayWrite, group = ALONE } = options;
  const { logging } = config;
  const means = new Means();
  const writes = group.rank === 0;
  const guard = new Guard(trainer, { folder, guards: config.guards, reporter, writes });
  if (from) {
    const state = from.loop as LoopState;
    means.restore(state.means);
    guard.state = state.guard;
  }
  /** Metrics of the current step, by which the best checkpoint is chosen. */
  let measured: Metrics = {};
  const checkpoint = async (interrupted: boolean) => {
    guard.checkParameters();
    const begun = performance.now();
    await trainer.gather?.();
    if (writes) {
      await mayWrite?.();
      await log.sync();
      const loop: LoopState = { means: means.state, guard: guard.state };
      await saveCheckpoint(folder, trainer, { loop, metrics: measured, interrupted });
      await pruneCheckpoints(folder, logging);
      const seconds = ((performance.now() - begun) / 1000).toFixed(2);
      reporter.debug?.('run', `checkpoint of step ${trainer.steps} written to ${folder} in ${seconds} s`);
    }
    trainer.release?.();
  };
  const { steps: start, totalSteps: total } = trainer;
  const progress = reporter.progress({ label: options.label, total, unit: 'steps', start });
  const pace = new Pace(start);
  let saved = start;
  let peakMemory: (() => number) | undefined;
  reporter.debug?.('memory', () => {
    peakMemory = watchMemory();
    return memoryText(start, peakMemory());
  });
  try {
    while (!trainer.finished) {
      const last = await guard.step();
      pace.waited += trainer.waited;
      await turn();
      if (last) means.add(last);
      measured = {};
      const due = (every: number) => trainer.steps % every === 0 || trainer.finished;
      if (due(logging.metrics_every)) {
        measured = { ...withStates(means.take(), last ?? {}), ...trainer.summary?.(), ...guard.metrics };
        const timing = pace.at(trainer.steps);
        await log.append({ step: trainer.steps, ...measured }, timing);
        progress.update(trainer.steps, shown(measured));
        reporter.debug?.('data', () => waitText(trainer.steps, timing));
        reporter.debug?.('memory', () => memoryText(trainer.steps, peakMemory!()));
        pace.restart(trainer.steps);
      } else progress.update(trainer.steps);
      if (preview && due(logging.images_every)) {
        const begun = performance.now();
        const previewed = await preview();
        await log.show(trainer.steps, previewed);
        const seconds = ((performance.now() - begun) / 1000).toFixed(2);
        reporter.debug?.('run', `preview of step ${trainer.steps} drawn in ${seconds} s`);
        measured = { ...measured, ...previewed.metrics };
        pace.restart(trainer.steps);
      }
      if (due(logging.checkpoint_every)) {
        await checkpoint(false);
        saved = trainer.steps;
      }
      if ((await group.any(signal.aborted)) && !trainer.finished) {
        if (saved !== trainer.steps) await checkpoint(true);
        throw new Interrupted(
          `stopped at step ${trainer.steps}, which is saved in ${folder}; resume it with ${option('resume')}`,
        );
      }
    }
  } finally {
    progress.stop();
  }
}

/** The metrics beside the progress bar. */
function shown(row: Metrics): Record<string, number> {
  const names = ['loss', 'psnr', 'accuracy', 'codebook_usage'];
  return Object.fromEntries(names.filter((name) => name in row).map((name) => [name, row[name]]));
}
