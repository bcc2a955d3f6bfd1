import { existsSync } from 'node:fs';
import { readdir, rm, rmdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { CheckpointError } from '../errors.js';
import { outputError, removeTemporaries } from '../files/atomic.js';
import { fileChecksum } from '../files/bytes.js';
import { parseWeightsPath } from '../formats/tensor-file.js';
import { SUMS_FILE } from './checksums.js';

/** The model's file in a checkpoint folder. */
export const MODEL_FILE = 'model.safetensors';
/** The trainer's state and the loop's, besides tensors. */
export const STATE_FILE = 'state.json';

const CHECKPOINTS = 'checkpoints';
const NAME = /^step-(\d+)$/;
const PARTIAL = /^step-\d+\.partial$/;

/** The run folder of one stage in the folder of a tokenizer's training. */
export const stageFolder = (folder: string, stage: 1 | 2): string => join(folder, `stage${stage}`);

/** The run folders of both stages, stage 1 first. */
export const stageFolders = (folder: string): string[] => [stageFolder(folder, 1), stageFolder(folder, 2)];

/** The stage of a run folder, by its name; undefined for other runs. */
export function stageOf(run: string): 1 | 2 | undefined {
  const path = resolve(run);
  return ([1, 2] as const).find((stage) => basename(path) === basename(stageFolder(path, stage)));
}

export function checkpointFolder(run: string, step: number): string {
  return join(run, CHECKPOINTS, `step-${String(step).padStart(7, '0')}`);
}

/** Tensors that only training needs, each set in a file of its own: all names that trainers may use. */
export type TrainingPart = (typeof TRAINING_PARTS)[number];
const TRAINING_PARTS = [
  'optimizer',
  'parameters',
  'adapters',
  'discriminator',
  'discriminator-optimizer',
] as const;

/** All files that a checkpoint may contain. */
const FILES = [MODEL_FILE, ...TRAINING_PARTS.map((part) => `${part}.safetensors`), STATE_FILE, SUMS_FILE];

/**
 * The checkpoints of a run, oldest first. A folder named like one but without a checkpoint's files is ignored.
 * @throws CheckpointError if the folder of checkpoints cannot be read
 */
export async function listCheckpoints(run: string): Promise<{ step: number; folder: string }[]> {
  const folder = join(run, CHECKPOINTS);
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder).catch((error) => {
    const reason = error.code === 'ENOTDIR' ? 'is not a folder' : `cannot be read: ${error.message}`;
    throw new CheckpointError(`${folder}, the folder of checkpoints, ${reason}; move it away`, {
      cause: error,
    });
  });
  const isCheckpoint = (name: string) => FILES.some((file) => existsSync(join(folder, name, file)));
  const names = entries.filter((name) => NAME.test(name) && isCheckpoint(name));
  const found = names.map((name) => ({ step: Number(NAME.exec(name)![1]), folder: join(folder, name) }));
  return found.sort((a, b) => a.step - b.step);
}

/** Where a checkpoint is written until it is complete. */
export const partialOf = (folder: string): string => `${folder}.partial`;

/**
 * Removes the files of a checkpoint, complete or not, and its folder if nothing else is in it.
 * @throws OutputError if they cannot be removed
 */
export async function removeCheckpoint(folder: string): Promise<void> {
  try {
    await removeTemporaries(folder, FILES);
    for (const file of FILES) await rm(join(folder, file), { force: true });
    await rmdir(folder);
  } catch (error) {
    // The folder is not empty, does not exist, or is a link.
    if (!['ENOTEMPTY', 'ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code!))
      throw outputError(folder, error);
  }
}

/** Removes checkpoints that a killed process was writing. Only for the process that holds the run's lock. */
export async function removePartial(run: string): Promise<void> {
  const folder = join(run, CHECKPOINTS);
  for (const name of await readdir(folder).catch(() => []))
    if (PARTIAL.test(name)) await removeCheckpoint(join(folder, name));
}

/**
 * The model file that `path` refers to: the file itself, the model of a checkpoint folder, or of the newest checkpoint of a
 * run. In the folder of a tokenizer's two stages, that is stage 2 if it has a checkpoint, else stage 1. `FILE#KEY` is
 * returned unchanged.
 * @throws CheckpointError if there is no such file or checkpoint
 */
export async function resolveModel(path: string): Promise<string> {
  const info = await stat(path).catch(() => undefined);
  if (parseWeightsPath(path).key !== undefined) return path;
  if (!info) throw new CheckpointError(`${path} does not exist; name a .safetensors file or a run folder`);
  if (info.isFile()) return path;
  if (existsSync(join(path, MODEL_FILE))) return join(path, MODEL_FILE);
  for (const run of [path, ...stageFolders(path).reverse()]) {
    const newest = (await listCheckpoints(run)).at(-1);
    if (newest) return join(newest.folder, MODEL_FILE);
  }
  throw new CheckpointError(
    `${path} contains no checkpoint; name a .safetensors file or the folder of a training run`,
  );
}

/** SHA-256 of the model file that `path` refers to. @throws CheckpointError if there is none */
export async function modelChecksum(path: string): Promise<string> {
  return fileChecksum(parseWeightsPath(await resolveModel(path)).file);
}
