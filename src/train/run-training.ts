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
import { findRun, openRun, type Resume } from '../run/record.js';
import { pruneCheckpoints } from '../run/retention.js';
import { type Preview, train } from './loop.js';
import type { Trainer } from './trainer.js';

/** How a command is to take the run that its folder may hold. */
export interface ResumeOptions {
  resume: Resume;
  /** Resumes with values and data that change the result, too. */
  allowChanges?: boolean;
}

export interface TrainingOptions extends ResumeOptions {
  label: string;
  /** The run folder. */
  folder: string;
  config: Config;
  /** The config's keys that decide what the training makes. */
  decisive: RegExp;
  /** What the data is, by what it is called in messages. */
  inputs: Record<string, string>;
  /** Gives the trainer its first values, when there is no checkpoint to go on from. */
  initialize: () => void | Promise<void>;
  preview?: Preview;
}

/** What is done with a trainer once all is prepared. */
export type Runner = (trainer: Trainer, options: TrainingOptions, job: Job) => Promise<void>;

/**
 * Runs a trainer in a run folder from its start or its newest checkpoint to its end; no other process can do so meanwhile.
 * Of several that make the steps together rank 0 alone reads and writes the folder.
 * @throws Interrupted, OutputError, CheckpointError, ConfigError, DataError as `lockFolder`, `findRun`, `compareRun`,
 *   `loadNewestCheckpoint` and `train` do
 */
export const runTraining: Runner = async (trainer, options, job) => {
  const { group = ALONE } = job;
  let lock: FolderLock | undefined;
  try {
    if (group.rank === 0) {
      lock = await lockFolder(options.folder, { onWatch: job.reporter.info });
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
  // First what can fail: a folder must not look like a run that never began, nor lose the config of one that did.
  const begun = await findRun(folder, resume);
  const training = { label, steps: trainer.totalSteps };
  const run = { config, command, engine, inputs, training };
  if (begun) compareRun(folder, begun, run, { decisive, allowChanges, reporter });
  const from = begun && (await loadNewestCheckpoint(folder, trainer, reporter.warn));
  if (!from) await initialize();
  await broadcastState(group, trainer);
  await job.interruptible(async (signal) => {
    const files = await openRun(folder, run, begun);
    job.logTo(files.log);
    if (from) {
      await pruneCheckpoints(folder, config.logging); // the process may have ended before it did
      reporter.info(`${label}: going on from step ${trainer.steps}`);
    }
    if (trainer.finished) {
      reporter.info(`${label}: finished already, at step ${trainer.steps}`);
      return;
    }
    const log = await openRunLog(files, trainer.steps, config.logging);
    const mayWrite = () => lock.check();
    await train(trainer, { label, folder, config, log, reporter, signal, preview, from, mayWrite, group });
  });
}

/** A checksum of all parameters of a training. */
function checksum(training: Trainer): string {
  const hash = createHash('sha256');
  for (const parameters of [training.model, ...Object.values(training.trainingParts)])
    for (const { value } of parameters) hash.update(value.dataSync());
  return hash.digest('hex');
}

/**
 * Gives every process the state of rank 0: that of a fresh start or of a checkpoint, which so it alone has to read.
 * @throws TrainingError where a process then holds something else
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
      `rank ${other} does not begin with the parameters of rank 0; run the same version of alitok and PyTorch everywhere`,
    );
  training.release?.();
}
