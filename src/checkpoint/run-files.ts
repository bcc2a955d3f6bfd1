import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError } from '../errors.js';

/** The model's file in a checkpoint folder. */
export const MODEL_FILE = 'model.safetensors';

const CHECKPOINTS = 'checkpoints';
const NAME = /^step-(\d+)$/;

export function checkpointFolder(run: string, step: number): string {
  return join(run, CHECKPOINTS, `step-${String(step).padStart(7, '0')}`);
}

/** The checkpoints of a run, oldest first. Throws CheckpointError where they cannot be looked for. */
export async function listCheckpoints(run: string): Promise<{ step: number; folder: string }[]> {
  const folder = join(run, CHECKPOINTS);
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder).catch((error) => {
    const reason = error.code === 'ENOTDIR' ? 'is not a folder' : `cannot be read: ${error.message}`;
    throw new CheckpointError(`${folder}, where checkpoints are, ${reason}; move it away`, { cause: error });
  });
  const names = entries.filter((name) => NAME.test(name));
  const found = names.map((name) => ({ step: Number(NAME.exec(name)![1]), folder: join(folder, name) }));
  return found.sort((a, b) => a.step - b.step);
}

/** Removes checkpoints that were being written when the process was killed. Only for who alone writes the run. */
export async function removePartial(run: string): Promise<void> {
  const folder = join(run, CHECKPOINTS);
  for (const name of await readdir(folder).catch(() => []))
    if (name.endsWith('.partial')) await rm(join(folder, name), { recursive: true, force: true });
}

/**
 * The model file that `path` means: a file itself; a checkpoint folder's model; a run folder's newest checkpoint; a
 * tokenizer run of both stages: that of stage 2, else of stage 1. Throws CheckpointError if there is none.
 */
export async function resolveModel(path: string): Promise<string> {
  const info = await stat(path).catch(() => undefined);
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
