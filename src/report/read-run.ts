import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { AlitokError, DataError } from '../errors.js';
import { type MetricsRow, readMetrics } from '../run/metrics.js';
import { type RunRecord, readRecord, runFiles } from '../run/record.js';
import { evaluationFolders, runName } from './run-folders.js';

/** A picture that a run drew during training. */
export interface RunPicture {
  name: string;
  step: number;
  path: string;
}

/** A result of `alitok eval`. */
export interface Evaluation {
  name: string;
  values: Record<string, number | string>;
}

/** The contents of a run folder. What is missing or cannot be read is empty, with a line in `problems`. */
export interface RunContents {
  folder: string;
  name: string;
  info?: RunRecord;
  config?: Config;
  metrics: MetricsRow[];
  /** How often each code was used in the newest preview. */
  codeCounts?: { step: number; counts: readonly number[] };
  pictures: RunPicture[];
  evaluations: Evaluation[];
  problems: string[];
}

const PICTURE = /^(.+)-(\d+)\.png$/;

/** Reads a result of `alitok eval`: a JSON object of numbers and texts. @throws DataError where it is not one */
export async function readEvaluation(path: string): Promise<Evaluation> {
  let content: unknown;
  try {
    content = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new DataError(`${path} is not a result of alitok eval: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new DataError(`${path} is not a result of alitok eval, which is an object of names and values`);
  const values = Object.entries(content).filter(([, value]) => ['number', 'string'].includes(typeof value));
  return { name: basename(path, '.json'), values: Object.fromEntries(values) };
}

async function readPictures(folder: string): Promise<RunPicture[]> {
  if (!existsSync(folder)) return [];
  const found = (await readdir(folder)).flatMap((file): RunPicture[] => {
    const [, name, step] = PICTURE.exec(file) ?? [];
    return name === undefined ? [] : [{ name, step: Number(step), path: join(folder, file) }];
  });
  return found.sort((a, b) => a.step - b.step);
}

async function listEvaluations(run: string): Promise<string[]> {
  const lists = evaluationFolders(run).map(async (folder) => {
    if (!existsSync(folder)) return [];
    const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
    return names.sort().map((name) => join(folder, name));
  });
  return (await Promise.all(lists)).flat();
}

/** Reads a run folder, as far as it can be read. */
export async function readRun(folder: string): Promise<RunContents> {
  const files = runFiles(folder);
  const problems: string[] = [];
  /** The result of `read`; for an error that a user can cause, undefined and a line in `problems`. */
  const attempt = async <T>(read: () => T | Promise<T>): Promise<T | undefined> => {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof AlitokError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const metrics = (await attempt(() => readMetrics(files.metrics))) ?? [];
  const counts = existsSync(files.codeCounts)
    ? await attempt(() => readMetrics(files.codeCounts))
    : undefined;
  const info = await attempt(() => readRecord(folder));
  if (!info && problems.length === 0) problems.push(`${folder} has no run.json, so versions are not known`);
  const config = await attempt(() => loadConfig(join(folder, 'config.yaml')));
  const evaluations: Evaluation[] = [];
  for (const path of await listEvaluations(folder)) {
    const evaluation = await attempt(() => readEvaluation(path));
    if (evaluation) evaluations.push(evaluation);
  }
  const newest = counts?.at(-1) as { step: number; counts?: readonly number[] } | undefined;
  return {
    folder,
    name: runName(folder),
    info,
    config,
    metrics,
    codeCounts: newest?.counts ? { step: newest.step, counts: newest.counts } : undefined,
    pictures: await readPictures(files.images),
    evaluations,
    problems,
  };
}

/** The steps that a run has made, according to its log. */
function stepsDone({ metrics }: RunContents): number {
  return metrics.reduce((most, { step }) => Math.max(most, step), 0);
}

/**
 * The steps that a run has made, and their total number. A log does not show whether a run of fewer steps was stopped or
 * had a phase that ended early.
 */
export function standing(run: RunContents): string {
  const done = stepsDone(run);
  const total = run.info?.training?.steps;
  if (total === undefined) return `${done}`;
  return done < total ? `${done} of ${total}: not finished, or ended early` : `${done} of ${total}`;
}
