import { loadNewestCheckpoint } from '../checkpoint/training-checkpoint.js';
import type { Config } from '../config/schema.js';
import type { Job } from '../job/job.js';
import { type Preview, train } from './loop.js';
import { openMetricsLog } from './metrics-log.js';
import { openRun } from './run-folder.js';
import type { Trainer } from './trainer.js';

/** A trainer that can start fresh and that holds resources. */
export interface RunnableTrainer extends Trainer {
  close?(): Promise<void>;
}

export interface TrainingOptions {
  label: string;
  /** The run folder. */
  folder: string;
  config: Config;
  /** Goes on from the folder's newest checkpoint. */
  resume: boolean;
  /** Gives the trainer its first values, when there is no checkpoint to go on from. */
  initialize: () => void | Promise<void>;
  preview?: Preview;
}

/**
 * Runs a trainer in a run folder from its start or its newest checkpoint to its end.
 * @throws Interrupted, OutputError, CheckpointError as `openRun`, `loadNewestCheckpoint` and `train` do
 */
export async function runTraining(
  trainer: RunnableTrainer,
  options: TrainingOptions,
  job: Job,
): Promise<void> {
  const { label, folder, config, resume, initialize, preview } = options;
  const files = await openRun(folder, { config, command: job.command, engine: job.engine, resume });
  job.logTo(files.log);
  try {
    const step = resume ? await loadNewestCheckpoint(folder, trainer) : undefined;
    if (step === undefined) await initialize();
    else job.reporter.info(`${label}: going on from step ${step}`);
    if (trainer.finished) {
      job.reporter.info(`${label}: finished already, at step ${trainer.steps}`);
      return;
    }
    const metrics = await openMetricsLog(files.metrics, trainer.steps);
    const { reporter, signal } = job;
    await train(trainer, { label, folder, logging: config.logging, metrics, reporter, signal, preview });
  } finally {
    await trainer.close?.();
  }
}
