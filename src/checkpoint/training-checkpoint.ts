import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import { openSafetensors } from '../formats/safetensors.js';
import type { Parameters } from '../nn/parameters.js';
import { saveParameters } from './model-file.js';
import { checkpointFolder, listCheckpoints, MODEL_FILE } from './run-files.js';

/** What a checkpoint is made from and restored into. */
export interface Checkpointed {
  readonly steps: number;
  readonly state: object;
  saveModel(path: string): Promise<void>;
  /** The model's parameters, as its own file holds them. */
  readonly model: Parameters;
  /** Tensors that only training needs, by file name. */
  readonly trainingParts: Record<string, Parameters>;
  restore(state: object): void;
}

const STATE_FILE = 'state.json';

/**
 * Writes a checkpoint of a run: the folder appears under its name only when it is complete. Then removes all but the
 * newest `keep`. Throws OutputError if it cannot be written; older checkpoints stay.
 */
export async function saveCheckpoint(run: string, training: Checkpointed, keep: number): Promise<void> {
  const folder = checkpointFolder(run, training.steps);
  const partial = `${folder}.partial`;
  try {
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
  } catch (error) {
    throw outputError(partial, error);
  }
  try {
    await training.saveModel(join(partial, MODEL_FILE));
    for (const [name, parameters] of Object.entries(training.trainingParts))
      await saveParameters(join(partial, `${name}.safetensors`), parameters);
    await writeFileAtomic(join(partial, STATE_FILE), JSON.stringify(training.state, null, 2));
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
  for (const old of (await listCheckpoints(run)).slice(0, -keep))
    await rm(old.folder, { recursive: true, force: true });
}

/** Loads the newest checkpoint of a run; gives its step, or undefined if there is none. Throws CheckpointError. */
export async function loadNewestCheckpoint(run: string, training: Checkpointed): Promise<number | undefined> {
  const newest = (await listCheckpoints(run)).at(-1);
  if (!newest) return undefined;
  const parts = { [MODEL_FILE]: training.model, ...suffixed(training.trainingParts) };
  for (const [name, parameters] of Object.entries(parts)) {
    const file = await openSafetensors(join(newest.folder, name));
    try {
      await parameters.load(file);
    } finally {
      await file.close();
    }
  }
  const path = join(newest.folder, STATE_FILE);
  try {
    training.restore(JSON.parse(await readFile(path, 'utf8')) as object);
  } catch (error) {
    throw new CheckpointError(
      `${path} cannot be read; remove ${newest.folder} to go on from the one before`,
      {
        cause: error,
      },
    );
  }
  return newest.step;
}

function suffixed(parts: Record<string, Parameters>): Record<string, Parameters> {
  return Object.fromEntries(Object.entries(parts).map(([name, value]) => [`${name}.safetensors`, value]));
}
