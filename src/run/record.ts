import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { configToYaml } from '../config/load.js';
import type { Config } from '../config/schema.js';
import type { Engine } from '../engine/index.js';
import { CheckpointError, OutputError, option } from '../errors.js';
import { makeFolder, removeTemporaries, writeOwnFile } from '../files/atomic.js';
import type { Job } from '../job/job.js';
import { type ProgramVersions, programVersions } from '../versions.js';
import { listCheckpoints } from './layout.js';

const RUN_FILE = 'run.json';
export const CONFIG_FILE = 'config.yaml';

/** Whether to go on with the run that is in the folder: yes, no (there must be none), or if there is one. */
export type Resume = boolean | 'auto';

export interface RunOptions {
  config: Config;
  /** The command line, as it can be typed again. */
  command: string;
  engine: Engine;
  /** What the data is that the run is made from, by what it is called in messages. */
  inputs: Record<string, string>;
  /** What is trained, and the steps that this takes if no phase ends early. */
  training: { label: string; steps: number };
}

/** Files of a run that others write. */
export interface RunFiles {
  metrics: string;
  log: string;
  /** How often each code was chosen for the images of a preview, a line for each preview. */
  codeCounts: string;
  /** Folder of the pictures that previews drew. */
  images: string;
  /** Folder of the same record as event files for TensorBoard. */
  tensorboard: string;
}

/** The files and folders of a run folder. */
export function runFiles(folder: string): RunFiles {
  return {
    metrics: join(folder, 'metrics.jsonl'),
    log: join(folder, 'log.jsonl'),
    codeCounts: join(folder, 'code-counts.jsonl'),
    images: join(folder, 'images'),
    tensorboard: join(folder, 'tensorboard'),
  };
}

/** The names that a run gives what it writes, beside its record. */
const OWN_NAMES = [CONFIG_FILE, 'checkpoints', ...Object.values(runFiles('.'))];

/** One start of a run, in run.json: what ran, on what. */
export interface Start extends ProgramVersions {
  time: string;
  command: string;
  engine: Engine;
}

/** What run.json holds. */
export interface RunRecord {
  name: string;
  seed: number;
  inputs?: Record<string, string>;
  training?: RunOptions['training'];
  /** Oldest first. */
  starts: Start[];
}

/** What runs, on what. */
export function describeStart({ command, engine }: Pick<Job, 'command' | 'engine'>): Start {
  return { time: new Date().toISOString(), command, engine, ...programVersions() };
}

/** What the run.json in a folder says; undefined if there is no run. @throws CheckpointError if it is damaged */
export async function readRecord(folder: string): Promise<RunRecord | undefined> {
  const path = join(folder, RUN_FILE);
  if (!existsSync(path)) return undefined;
  let record: RunRecord;
  try {
    record = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new CheckpointError(`${path} is damaged: ${(error as Error).message}`, { cause: error });
  }
  if (!Array.isArray(record?.starts))
    throw new CheckpointError(`${path} is no record of a run; choose another folder`);
  return record;
}

/**
 * Gives the record of the run in a folder that is to be resumed; undefined for a run that is to be begun.
 * @throws OutputError where the folder holds a run already and `resume` is false, or files of a run's names without one
 * @throws CheckpointError where there is no run to resume, or there can be no checkpoints
 */
export async function findRun(folder: string, resume: Resume): Promise<RunRecord | undefined> {
  const record = await readRecord(folder);
  if (record && resume === false)
    throw new OutputError(
      `${folder} holds a run already; go on with it by ${option('resume')}, or choose another folder`,
    );
  const foreign = record ? undefined : OWN_NAMES.find((name) => existsSync(join(folder, name)));
  if (foreign !== undefined)
    throw new OutputError(
      `${folder} holds ${foreign} but no ${RUN_FILE}, so it is of no run of alitok; choose another folder, or move ${foreign} away`,
    );
  if (!record && resume === true)
    throw new CheckpointError(`${folder} holds no run to resume; start one without ${option('resume')}`);
  await listCheckpoints(folder);
  return record;
}

/**
 * Makes a folder the home of one run: `config.yaml` (all values, to repeat it) and `run.json` (seed, data, what is
 * trained, and for each start its command, engine, versions and git revision). `begun` is the record of a run that goes
 * on.
 * @throws OutputError where the folder cannot be written
 */
export async function openRun(folder: string, options: RunOptions, begun?: RunRecord): Promise<RunFiles> {
  const { config, inputs, training } = options;
  const files = runFiles(folder);
  await makeFolder(folder);
  for (const written of [folder, files.images]) await removeTemporaries(written);
  const starts = [...(begun?.starts ?? []), describeStart(options)];
  const run: RunRecord = { name: config.name, seed: config.seed, inputs, training, starts };
  // First the file that says whose folder it is.
  await writeOwnFile(join(folder, RUN_FILE), `${JSON.stringify(run, null, 2)}\n`);
  await writeOwnFile(join(folder, CONFIG_FILE), configToYaml(config));
  return files;
}
