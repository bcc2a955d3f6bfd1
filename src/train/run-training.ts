import { loadNewestCheckpoint } from '../checkpoint/training-checkpoint.js';
import type { Config } from '../config/schema.js';
import type { Job } from '../job/job.js';
import { type Preview, train } from './loop.js';
import { checkRun, openRun } from './run-folder.js';
import { openRunRecord } from './run-record.js';
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

/** What is done with a trainer once all is prepared. */
export type Runner = (trainer: RunnableTrainer, options: TrainingOptions, job: Job) => Promise<void>;

/**
 * Runs a trainer in a run folder from its start or its newest checkpoint to its end.
 * @throws Interrupted, OutputError, CheckpointError as `openRun`, `loadNewestCheckpoint` and `train` do
 */
export const runTraining: Runner = async (trainer, options, job) => {
  const { label, folder, config, resume, initialize, preview } = options;
  try {
    await checkRun(folder, resume);
    // First what can fail: a folder must not look like a run that never began, nor lose the config of one that did.
    const step = resume ? await loadNewestCheckpoint(folder, trainer) : undefined;
    if (step === undefined) await initialize();
    const { reporter, signal } = job; // from here on Ctrl-C saves
    const training = { label, steps: trainer.totalSteps };
    const { command, engine } = job;
    const files = await openRun(folder, { config, command, engine, training, resume });
    job.logTo(files.log);
    if (step !== undefined) reporter.info(`${label}: going on from step ${step}`);
    if (trainer.finished) {
      reporter.info(`${label}: finished already, at step ${trainer.steps}`);
      return;
    }
    const record = await openRunRecord(files, trainer.steps, config.logging);
    await train(trainer, { label, folder, logging: config.logging, record, reporter, signal, preview });
  } finally {
    await trainer.close?.();
  }
};
