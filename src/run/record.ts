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

/** Whether to resume the run in the folder: yes, no (there must be none), or if there is one. */
export type Resume = boolean | 'auto';

/** The trained weights that a run started from, and what became of them. */
export interface InitialWeights {
  path: string;
  /** Of the file. */
  sha256: string;
  /** Number of parameters that were taken as they are. */
  taken: number;
  /** How others were changed, by name. */
  changed: Record<string, string>;
  /** Names of those that were drawn anew. */
  redrawn: string[];
}

export interface RunOptions {
  config: Config;
  /** The command line, as it can be typed again. */
  command: string;
  engine: Engine;
  /** Identifies the data that the run is trained on, by the data's names in messages. */
  inputs: Record<string, string>;
  /** What is trained, and for how many steps if no phase ends early. */
  training: { label: string; steps: number };
  /** Only of a run that starts from trained weights, when it starts. */
  initial?: InitialWeights;
}

/** Files and folders of a run, apart from its record and checkpoints. */
export interface RunFiles {
  metrics: string;
  log: string;
  /** How often each code was chosen for the images of a preview, one line per preview. */
  codeCounts: string;
  /** Folder of the previews' pictures. */
  images: string;
  /** Folder of event files for TensorBoard. */
  tensorboard: string;
}

export function runFiles(folder: string): RunFiles {
  return {
    metrics: join(folder, 'metrics.jsonl'),
    log: join(folder, 'log.jsonl'),
    codeCounts: join(folder, 'code-counts.jsonl'),
    images: join(folder, 'images'),
    tensorboard: join(folder, 'tensorboard'),
  };
}

/** Names of everything that a run writes, apart from its record. */
const OWN_NAMES = [CONFIG_FILE, 'checkpoints', ...Object.values(runFiles('.'))];

/** One start of a run in run.json: which program ran, on which engine. */
export interface Start extends ProgramVersions {
  time: string;
  command: string;
  engine: Engine;
}

/** The content of run.json. */
export interface RunRecord {
  name: string;
  seed: number;
  inputs?: Record<string, string>;
  training?: RunOptions['training'];
  initial?: InitialWeights;
  /** Oldest first. */
  starts: Start[];
}

export function describeStart({ command, engine }: Pick<Job, 'command' | 'engine'>): Start {
  return { time: new Date().toISOString(), command, engine, ...programVersions() };
}

/** The content of a folder's run.json; undefined if there is no run. @throws CheckpointError if it is damaged */
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
    throw new CheckpointError(`${path} is not the record of a run; choose another folder`);
  return record;
}

/**
 * Finds the run to resume in a folder.
 * @returns its record; undefined for a new run
 * @throws OutputError if the folder contains a run and `resume` is false, or files named like a run's without one
 * @throws CheckpointError if there is no run to resume, or the folder of checkpoints cannot be read
 */
export async function findRun(folder: string, resume: Resume): Promise<RunRecord | undefined> {
  const record = await readRecord(folder);
  if (record && resume === false)
    throw new OutputError(
      `${folder} already contains a run; continue it with ${option('resume')}, or choose another folder`,
    );
  const foreign = record ? undefined : OWN_NAMES.find((name) => existsSync(join(folder, name)));
  if (foreign !== undefined)
    throw new OutputError(
      `${folder} contains ${foreign} but no ${RUN_FILE}, so it is not a run folder of alitok; choose another folder, or move ${foreign} away`,
    );
  if (!record && resume === true)
    throw new CheckpointError(`${folder} contains no run to resume; start one without ${option('resume')}`);
  await listCheckpoints(folder);
  return record;
}

/**
 * Writes the record of a run into its folder: `config.yaml` (all values, to repeat the run) and `run.json` (seed, data, what
 * is trained, and for each start its command, engine, versions and git revision). `begun` is the record of a run that is
 * resumed.
 * @throws OutputError if the folder cannot be written
 */
export async function openRun(folder: string, options: RunOptions, begun?: RunRecord): Promise<RunFiles> {
  const { config, inputs, training, initial = begun?.initial } = options;
  const files = runFiles(folder);
  await makeFolder(folder);
  for (const written of [folder, files.images]) await removeTemporaries(written);
  const starts = [...(begun?.starts ?? []), describeStart(options)];
  const run: RunRecord = { name: config.name, seed: config.seed, inputs, training, initial, starts };
  // Written first, because it marks the folder as a run's.
  await writeOwnFile(join(folder, RUN_FILE), `${JSON.stringify(run, null, 2)}\n`);
  await writeOwnFile(join(folder, CONFIG_FILE), configToYaml(config));
  return files;
}
