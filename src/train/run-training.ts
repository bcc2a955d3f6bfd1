import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import { ALONE, type Group } from '../engine/distributed/group.js';
import { TrainingError } from '../errors.js';
import { type FolderLock, lockFolder } from '../files/folder-lock.js';
import type { Job } from '../job/job.js';
import { loadNewestCheckpoint } from '../run/checkpoint.js';
import { compareRun } from '../run/compare.js';
import { NO_LOG, openRunLog } from '../run/log.js';
import { findRun, type InitialWeights, openRun, type Resume } from '../run/record.js';
import { pruneCheckpoints } from '../run/retention.js';
import { type Preview, train } from './loop.js';
import type { Trainer } from './trainer.js';

/** How to treat a run that is already in the folder. */
export interface ResumeOptions {
  resume: Resume;
  /** Resumes even with config values or data that change the result. */
  allowChanges?: boolean;
}

export interface TrainingOptions extends ResumeOptions {
  label: string;
  /** The run folder. */
  folder: string;
  config: Config;
  /** Config keys that change the result of the training. */
  decisive: RegExp;
  /** Identifies the data; the keys are its names in messages. */
  inputs: Record<string, string>;
  /**
   * Initializes the trainer, where there is no checkpoint to resume, or where checkpoints do not have all parameters.
   * Returns what it took from trained weights.
   */
  initialize: () => Promise<InitialWeights | undefined>;
  preview?: Preview;
}

/** What to do with a trainer that is ready: `runTraining`, or a rehearsal. */
export type Runner = (trainer: Trainer, options: TrainingOptions, job: Job) => Promise<void>;

/**
 * Runs a trainer in a run folder, from the start or the newest checkpoint to the end, and locks the folder meanwhile. Of
 * several processes only rank 0 reads and writes the folder.
 * @throws Interrupted, OutputError, CheckpointError, ConfigError, DataError as `lockFolder`, `findRun`, `compareRun`,
 *   `loadNewestCheckpoint` and `train` do
 */
export const runTraining: Runner = async (trainer, options, job) => {
  const { group = ALONE } = job;
  let lock: FolderLock | undefined;
  try {
    if (group.rank === 0) {
      lock = await lockFolder(options.folder, { onWatch: job.reporter.info });
      job.reporter.debug?.('run', `${options.folder} is locked for this process`);
      await runLocked(trainer, options, job, lock);
      return;
    }
    await broadcastState(group, trainer);
    const { label, folder, config } = options;
    const { reporter } = job;
    await job.interruptible((signal) =>
      train(trainer, { label, folder, config, log: NO_LOG, reporter, signal, group }),
    );
  } finally {
    await trainer.close?.();
    await lock?.release();
  }
};

async function runLocked(
  trainer: Trainer,
  options: TrainingOptions,
  job: Job,
  lock: FolderLock,
): Promise<void> {
  const {
    label,
    folder,
    config,
    resume,
    allowChanges = false,
    decisive,
    inputs,
    initialize,
    preview,
  } = options;
  const { reporter, command, engine, group = ALONE } = job;
  // What can fail comes before anything is written: no folder may look like a run that never began, or lose its config.
  const begun = await findRun(folder, resume);
  const training = { label, steps: trainer.totalSteps };
  const run = { config, command, engine, inputs, training };
  if (begun) compareRun(folder, begun, run, { decisive, allowChanges, reporter });
  let initial = trainer.derived ? await initialize() : undefined;
  const from = begun && (await loadNewestCheckpoint(folder, trainer, reporter.warn));
  if (!from && !trainer.derived) initial = await initialize();
  await broadcastState(group, trainer);
  await job.interruptible(async (signal) => {
    const files = await openRun(folder, { ...run, initial }, begun);
    job.logTo(files.log);
    reporter.debug?.(
      'run',
      `${folder}: ${begun ? `start ${begun.starts.length + 1} of the run` : 'new run'}, ${trainer.totalSteps} steps`,
    );
    if (from) {
      await pruneCheckpoints(folder, config.logging); // the last process may have ended before it did
      reporter.info(`${label}: resumed from step ${trainer.steps}`);
    }
    if (trainer.finished) {
      reporter.info(`${label}: already finished, at step ${trainer.steps}`);
      return;
    }
    const log = await openRunLog(files, trainer.steps, config.logging);
    const mayWrite = () => lock.check();
    await train(trainer, { label, folder, config, log, reporter, signal, preview, from, mayWrite, group });
  });
}

/** SHA-256 of all parameters and optimizer moments. */
function checksum(training: Trainer): string {
  const hash = createHash('sha256');
  for (const parameters of [training.model, ...Object.values(training.trainingParts)])
    for (const { value } of parameters) hash.update(value.dataSync());
  return hash.digest('hex');
}

/**
 * Broadcasts the state of rank 0, so that it alone needs to read a checkpoint.
 * @throws TrainingError where another process then has other numbers
 */
async function broadcastState(group: Group, training: Trainer): Promise<void> {
  if (group.size === 1) return;
  const state = await group.broadcastObject(training.state);
  if (group.rank > 0) training.restore(state);
  for (const parameters of [training.model, ...Object.values(training.trainingParts)])
    for (const parameter of parameters) {
      const own = group.rank === 0 ? parameter.value.clone() : tf.zeros(parameter.shape as number[]);
      parameter.value = await group.broadcast(own);
      own.dispose();
    }
  const sums = (await group.allGatherBytes(Buffer.from(checksum(training)))).map((sum) =>
    Buffer.from(sum).toString(),
  );
  const other = sums.findIndex((sum) => sum !== sums[0]);
  if (other > 0)
    throw new TrainingError(
      `rank ${other} received other parameters than rank 0 has; run the same version of alitok and PyTorch everywhere`,
    );
  training.release?.();
}
