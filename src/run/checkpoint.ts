import { existsSync } from 'node:fs';
import { readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CheckpointError, OutputError, option } from '../errors.js';
import { makeFolder, outputError, syncFolder, writeOwnFile } from '../files/atomic.js';
import { openSafetensors } from '../formats/safetensors.js';
import { type Parameters, type Saved, saveParameters } from '../nn/parameters.js';
import { DamagedError, verifyFolder, writeChecksums } from './checksums.js';
import {
  checkpointFolder,
  listCheckpoints,
  MODEL_FILE,
  partialOf,
  removeCheckpoint,
  removePartial,
  STATE_FILE,
  type TrainingPart,
} from './layout.js';

/** Tensors that only training needs, by the names of their files. */
export type TrainingParts = { optimizer: Parameters } & Partial<Record<TrainingPart, Parameters>>;

/** A trainer, as far as checkpoints save and restore it. */
export interface Checkpointed {
  readonly steps: number;
  readonly state: object;
  saveModel(path: string): Promise<void>;
  /** The model's parameters, as its file contains them unless it is `derived`. */
  readonly model: Parameters;
  /** Whether the model's file is computed from other parameters, so that nothing is restored from it. */
  readonly derived?: boolean;
  /** What the model's file contains, if not `model`. */
  readonly saved?: Iterable<Saved>;
  readonly trainingParts: TrainingParts;
  restore(state: object): void;
}

/** What a checkpoint's `state.json` contains besides the trainer's state. */
export interface CheckpointNote {
  /** The state of the training loop: everything that later lines of the metrics log depend on. */
  loop: object;
  /** Metrics that were measured at this step. */
  metrics: Record<string, number>;
  /** Saved because the run was stopped, not because a checkpoint was due. */
  interrupted: boolean;
}

interface State extends CheckpointNote {
  trainer: object;
}

/** The safetensors files that a checkpoint is restored from by name, and the parameters that are loaded from them. */
function filesOf(training: Checkpointed): Record<string, Parameters> {
  const parts = Object.entries(training.trainingParts).map(([name, value]) => [`${name}.safetensors`, value]);
  const model = training.derived ? {} : { [MODEL_FILE]: training.model };
  return { ...model, ...Object.fromEntries(parts) };
}

/**
 * Writes a checkpoint of a run. The folder appears under its name only when it is complete and on the disk, with checksums
 * of its files.
 * @throws OutputError if it cannot be written; older checkpoints are kept
 */
export async function saveCheckpoint(
  run: string,
  training: Checkpointed,
  note: CheckpointNote,
): Promise<void> {
  const folder = checkpointFolder(run, training.steps);
  const partial = partialOf(folder);
  try {
    await writeFolder(partial, training, note);
    await removeCheckpoint(folder);
    await rename(partial, folder);
    await syncFolder(dirname(folder));
    await syncFolder(run);
  } catch (error) {
    // The original error is reported, even if it makes these fail too.
    await removeCheckpoint(partial).catch(() => {});
    const failure = error instanceof OutputError ? error : outputError(folder, error);
    const before = (await listCheckpoints(run).catch(() => [])).at(-1);
    if (!before) throw failure;
    throw new OutputError(
      `${failure.text}; the checkpoint of step ${before.step} is kept, and ${option('resume')} continues from it`,
      {
        cause: error,
      },
    );
  }
}

async function writeFolder(folder: string, training: Checkpointed, note: CheckpointNote): Promise<void> {
  await removeCheckpoint(folder);
  await makeFolder(folder);
  await training.saveModel(join(folder, MODEL_FILE));
  for (const [name, parameters] of Object.entries(training.trainingParts))
    await saveParameters(join(folder, `${name}.safetensors`), parameters);
  const state: State = { trainer: training.state, ...note };
  await writeOwnFile(join(folder, STATE_FILE), `${JSON.stringify(state)}\n`);
  await writeChecksums(folder);
}

/** The content of a checkpoint's `state.json`. @throws CheckpointError */
export async function readCheckpointState(folder: string): Promise<State> {
  const path = join(folder, STATE_FILE);
  try {
    return JSON.parse(await readFile(path, 'utf8')) as State;
  } catch (error) {
    throw new CheckpointError(`${path} cannot be read; remove ${folder}`, { cause: error });
  }
}

/**
 * Loads the newest undamaged checkpoint of a run. Newer ones, which are damaged, are renamed to `….damaged` once it has
 * been loaded, with a warning each.
 * @returns the checkpoint's note; undefined if the run has no checkpoints
 * @throws CheckpointError if all are damaged, or the newest undamaged one does not fit the model
 */
export async function loadNewestCheckpoint(
  run: string,
  training: Checkpointed,
  warn: (message: string) => void,
): Promise<CheckpointNote | undefined> {
  await removePartial(run);
  const damaged: { folder: string; reason: string }[] = [];
  for (const { folder, step } of (await listCheckpoints(run)).reverse()) {
    try {
      await verifyFolder(folder);
    } catch (error) {
      if (!(error instanceof DamagedError)) throw error;
      damaged.push({ folder, reason: error.message });
      continue;
    }
    const note = await load(folder, training);
    for (const { folder: bad, reason } of damaged) {
      const aside = await setAside(bad);
      warn(
        `${reason}; the run continues from the checkpoint of step ${step}, and ${bad} was renamed to ${aside}`,
      );
    }
    return note;
  }
  if (damaged.length === 0) return undefined;
  throw new CheckpointError(
    `${run} has no undamaged checkpoint: ${damaged.map(({ reason }) => reason).join('; ')}; start the run again in another folder`,
  );
}

async function load(folder: string, training: Checkpointed): Promise<CheckpointNote> {
  for (const [name, parameters] of Object.entries(filesOf(training))) {
    const file = await openSafetensors(join(folder, name));
    try {
      await parameters.load(file);
    } finally {
      await file.close();
    }
  }
  const { trainer, ...note } = await readCheckpointState(folder);
  training.restore(trainer);
  return note;
}

/** Renames a folder to an unused name. @returns the new path */
async function setAside(folder: string): Promise<string> {
  let aside = `${folder}.damaged`;
  for (let i = 2; existsSync(aside); i++) aside = `${folder}.damaged-${i}`;
  try {
    await rename(folder, aside);
  } catch (error) {
    throw outputError(aside, error);
  }
  return aside;
}
