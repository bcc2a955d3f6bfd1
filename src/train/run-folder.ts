import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { configToYaml } from '../config/load.js';
import type { Config } from '../config/schema.js';
import type { Engine } from '../engine/index.js';
import { CheckpointError, OutputError } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';

const RUN_FILE = 'run.json';
const PACKAGE = fileURLToPath(new URL('../../', import.meta.url));
const require = createRequire(import.meta.url);

export interface RunOptions {
  config: Config;
  /** The command line, as it can be typed again. */
  command: string;
  engine: Engine;
  /** What is trained, and the steps that this takes if no phase ends early. */
  training: { label: string; steps: number };
  /** Goes on with the run that is in the folder. */
  resume: boolean;
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

/** One start of a run, in run.json: what ran, on what. */
export interface Start {
  time: string;
  command: string;
  engine: Engine;
  versions: Record<'node' | 'alitok' | 'tfjs', string>;
  /** Of this program's checkout, ending in `-dirty` if files were changed; null outside of one. */
  git_revision: string | null;
}

function gitRevision(): string | null {
  if (!existsSync(join(PACKAGE, '.git'))) return null;
  try {
    const arguments_ = ['-C', PACKAGE, 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'];
    return execFileSync('git', arguments_, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null; // no git here, or no commit yet
  }
}

/** Versions of what runs, and of this program's checkout. */
export function programVersions(): Pick<Start, 'versions' | 'git_revision'> {
  const versions = {
    node: process.versions.node,
    alitok: require(join(PACKAGE, 'package.json')).version,
    tfjs: require('@tensorflow/tfjs/package.json').version,
  };
  return { versions, git_revision: gitRevision() };
}

function describeStart({ command, engine }: RunOptions): Start {
  return { time: new Date().toISOString(), command, engine, ...programVersions() };
}

/** What run.json says: which run it is, and its starts, oldest first. */
export interface RunInfo {
  name: string;
  seed: number;
  training?: RunOptions['training'];
  starts: Start[];
}

/** Reads the run.json of the run in a folder; undefined if there is no run. @throws CheckpointError if it is damaged */
export async function readRunInfo(folder: string): Promise<RunInfo | undefined> {
  const path = join(folder, RUN_FILE);
  if (!existsSync(path)) return undefined;
  try {
    const info = JSON.parse(await readFile(path, 'utf8')) as RunInfo;
    if (!Array.isArray(info.starts)) throw new Error('it names no starts');
    return info;
  } catch (error) {
    throw new CheckpointError(`${path} is damaged: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Gives the starts of the run in a folder, oldest first; none for a run that is about to be made.
 * @throws OutputError where the folder holds a run already and `resume` is false
 * @throws CheckpointError where there is no run to resume
 */
export async function checkRun(folder: string, resume: boolean): Promise<Start[]> {
  const starts = (await readRunInfo(folder))?.starts;
  if (starts && !resume)
    throw new OutputError(
      `${folder} holds a run already; go on with it by --resume, or choose another folder`,
    );
  if (!starts && resume)
    throw new CheckpointError(`${folder} holds no run to resume; start one without --resume`);
  return starts ?? [];
}

/**
 * Makes a folder the home of one run: `config.yaml` (all values, to repeat it) and `run.json` (seed, what is
 * trained, and for each start its command, engine, versions and git revision).
 * @throws OutputError where the folder cannot be written, and both errors of `checkRun`
 */
export async function openRun(folder: string, options: RunOptions): Promise<RunFiles> {
  const { config, resume, training } = options;
  const starts = await checkRun(folder, resume);
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw outputError(folder, error);
  }
  await writeFileAtomic(join(folder, 'config.yaml'), configToYaml(config));
  const run: RunInfo = {
    name: config.name,
    seed: config.seed,
    training,
    starts: [...starts, describeStart(options)],
  };
  await writeFileAtomic(join(folder, RUN_FILE), `${JSON.stringify(run, null, 2)}\n`);
  return runFiles(folder);
}
