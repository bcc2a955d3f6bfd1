import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { DataError } from '../errors.js';
import { stageFolders, stageOf } from '../run/layout.js';
import { runFiles } from '../run/record.js';

/** `tokenizer stage1` for a run in such a folder, else its folder's name. */
export function runName(run: string): string {
  const path = resolve(run);
  const name = basename(path);
  return stageOf(path) ? `${basename(dirname(path))} ${name}` : name;
}

/** The run folders at a path: the path itself, or the two stages of a tokenizer run. @throws DataError where there are none */
export function runFolders(path: string): string[] {
  const folders = [path, ...stageFolders(path)];
  const found = folders.filter((folder) => existsSync(runFiles(folder).metrics));
  if (found.length === 0)
    throw new DataError(`${path} holds no metrics.jsonl; name the folder of a training run`);
  return found;
}

/** The error for runs without a line in their metrics logs; `problem` is what could not be read. */
export function nothingRecorded(runs: readonly string[], problem?: string): DataError {
  return new DataError(
    `${runs.join(', ')}: no step has been recorded yet${problem === undefined ? '' : `, or it cannot be read: ${problem}`}`,
  );
}

/** The folders of a run's results of `alitok eval`: `evaluations` in it, and for stage 2 also in the tokenizer's folder. */
export function evaluationFolders(run: string): string[] {
  const folder = (path: string) => join(path, 'evaluations');
  return stageOf(run) === 2 ? [folder(run), folder(dirname(resolve(run)))] : [folder(run)];
}
