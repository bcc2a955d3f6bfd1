import type { Config } from '../config/schema.js';
import { ALONE } from '../engine/distributed/group.js';
import { type FolderLock, lockFolder } from '../files/folder-lock.js';
import type { Job } from '../job/job.js';
import { loadNewestCheckpoint } from '../run/checkpoint.js';
import { compareRun } from '../run/compare.js';
import { NO_LOG, openRunLog } from '../run/log.js';
import { findRun, openRun, type Resume } from '../run/record.js';
import { pruneCheckpoints } from '../run/retention.js';
import { broadcastState } from './broadcast-state.js';
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
    reporter.debug?.(
      'run',
      `${folder}: ${begun ? `start ${begun.starts.length + 1} of the run` : 'new run'}, ${trainer.totalSteps} steps`,
    );
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
