import { existsSync } from 'node:fs';
import { readdir, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError } from '../errors.js';
import { outputError, removeTemporaries } from '../files/atomic.js';
import { fileChecksum } from '../files/bytes.js';
import { parseWeightsPath } from '../formats/tensor-file.js';
import { SUMS_FILE } from './checksums.js';

/** The model's file in a checkpoint folder. */
export const MODEL_FILE = 'model.safetensors';
/** What it says besides its tensors. */
export const STATE_FILE = 'state.json';

const CHECKPOINTS = 'checkpoints';
const NAME = /^step-(\d+)$/;
const PARTIAL = /^step-\d+\.partial$/;

export function checkpointFolder(run: string, step: number): string {
  return join(run, CHECKPOINTS, `step-${String(step).padStart(7, '0')}`);
}

/** The tensors that only training needs, each in a file of its own: all names that trainers may give them. */
export type TrainingPart = (typeof TRAINING_PARTS)[number];
const TRAINING_PARTS = ['optimizer', 'parameters', 'discriminator', 'discriminator-optimizer'] as const;

/** All files that a checkpoint may have. */
const FILES = [MODEL_FILE, ...TRAINING_PARTS.map((part) => `${part}.safetensors`), STATE_FILE, SUMS_FILE];

/**
 * The checkpoints of a run, oldest first. A folder of such a name without a checkpoint's files is none. Throws
 * CheckpointError where they cannot be looked for.
 */
export async function listCheckpoints(run: string): Promise<{ step: number; folder: string }[]> {
  const folder = join(run, CHECKPOINTS);
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder).catch((error) => {
    const reason = error.code === 'ENOTDIR' ? 'is not a folder' : `cannot be read: ${error.message}`;
    throw new CheckpointError(`${folder}, where checkpoints are, ${reason}; move it away`, { cause: error });
  });
  const isCheckpoint = (name: string) => FILES.some((file) => existsSync(join(folder, name, file)));
  const names = entries.filter((name) => NAME.test(name) && isCheckpoint(name));
  const found = names.map((name) => ({ step: Number(NAME.exec(name)![1]), folder: join(folder, name) }));
  return found.sort((a, b) => a.step - b.step);
}

/** Where a checkpoint lies until it is complete. */
export const partialOf = (folder: string): string => `${folder}.partial`;

/**
 * Removes the files of a checkpoint, complete or not, and its folder where nothing else is in it.
 * @throws OutputError where they cannot be removed
 */
export async function removeCheckpoint(folder: string): Promise<void> {
  try {
    await removeTemporaries(folder, FILES);
    for (const file of FILES) await rm(join(folder, file), { force: true });
    await rmdir(folder);
  } catch (error) {
    // Something else is in it, it is gone, or it is a link.
    if (!['ENOTEMPTY', 'ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code!))
      throw outputError(folder, error);
  }
}

/** Removes checkpoints that were being written when the process was killed. Only for who alone writes the run. */
export async function removePartial(run: string): Promise<void> {
  const folder = join(run, CHECKPOINTS);
  for (const name of await readdir(folder).catch(() => []))
    if (PARTIAL.test(name)) await removeCheckpoint(join(folder, name));
}

/**
 * The model file that `path` means: a file itself; a checkpoint folder's model; a run folder's newest checkpoint; a
 * tokenizer run of both stages: that of stage 2, else of stage 1. `FILE#KEY` is left as it is. Throws CheckpointError if
 * there is none.
 */
export async function resolveModel(path: string): Promise<string> {
  const info = await stat(path).catch(() => undefined);
  if (parseWeightsPath(path).key !== undefined) return path;
  if (!info) throw new CheckpointError(`${path} does not exist; name a .safetensors file or a run folder`);
  if (info.isFile()) return path;
  if (existsSync(join(path, MODEL_FILE))) return join(path, MODEL_FILE);
  for (const run of [path, join(path, 'stage2'), join(path, 'stage1')]) {
    const newest = (await listCheckpoints(run)).at(-1);
    if (newest) return join(newest.folder, MODEL_FILE);
  }
  throw new CheckpointError(
    `${path} holds no checkpoint; name a .safetensors file or the folder of a training run`,
  );
}

/** SHA-256 of the model file that `path` means. Throws CheckpointError if there is none. */
export async function modelChecksum(path: string): Promise<string> {
  return fileChecksum(parseWeightsPath(await resolveModel(path)).file);
}
