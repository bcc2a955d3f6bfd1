import { type ChildProcess, type SpawnOptionsWithoutStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';
import { parse } from 'yaml';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { copyShared } from '../support/made-once.js';

const BINARY = fileURLToPath(new URL('../../bin/alitok.js', import.meta.url));
export const TINY = fileURLToPath(new URL('../fixtures/tiny.yaml', import.meta.url));

/** The values of `tiny.yaml` as overrides for any config, except the number of classes. */
export const TINY_VALUES = Object.entries<Record<string, unknown>>(
  parse(await readFile(TINY, 'utf8')),
).flatMap(([section, values]) =>
  Object.entries(typeof values === 'object' ? values : {})
    .filter(([key]) => key !== 'classes')
    .map(([key, value]) => `${section}.${key}=${JSON.stringify(value)}`),
);

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A running program. */
export interface Running {
  child: ChildProcess;
  outcome: Promise<Outcome>;
}

/** Starts the program like a user, without a terminal and with the wasm engine. */
export const start = (...args: string[]): Running => startWith({}, ...args);

/** Starts the program with other variables in its environment. */
export function startWith(environment: NodeJS.ProcessEnv, ...args: string[]): Running {
  return begin({ env: { ...process.env, ...environment } }, args);
}

/** Starts the program in a folder. */
export const startIn = (cwd: string, ...args: string[]): Running => begin({ cwd }, args);

/** Runs the program in a folder, to its end. */
export const runIn = (cwd: string, ...args: string[]): Promise<Outcome> => startIn(cwd, ...args).outcome;

let threads: string[] = [];
/** Makes programs in a test file that is not about speed use one thread each: more would wait for other tests' threads. */
export function useOneThread(): void {
  threads = ['--threads', '1'];
}

function begin(options: SpawnOptionsWithoutStdio, args: string[]): Running {
  const child = spawn(process.execPath, [BINARY, '--engine', 'wasm', ...threads, ...args], options);
  const outcome: Outcome = { code: null, stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      outcome[stream] += text;
    });
  return { child, outcome: once(child, 'close').then(([code]) => ({ ...outcome, code: code as number })) };
}

/** Runs the program to its end. */
export const alitok = (...args: string[]): Promise<Outcome> => start(...args).outcome;

/** Runs the program; throws its output unless it succeeds. */
export async function succeed(...args: string[]): Promise<Outcome> {
  const outcome = await alitok(...args);
  if (outcome.code !== 0) throw new Error(`alitok ${args.join(' ')}: ${outcome.code}\n${outcome.stderr}`);
  return outcome;
}

/** Puts the folders `train` and `tokenizer` and `tokens.safetensors` into a folder: pictures, a run of both stages, its codes. */
export async function tinyRun(folder: string): Promise<void> {
  await copyShared('tiny-run', folder, async (path) => {
    const at = (name: string) => join(path, name);
    await drawPictures({ folder: path, size: 16, perClass: 3, seed: 1, split: 'train' });
    const images = ['-c', TINY, '-d', at('train')];
    await succeed('train-tokenizer', ...images, '--validation', at('train'), '-r', at('tokenizer'));
    await succeed('tokenize', ...images, '--tokenizer', at('tokenizer'), '-o', at('tokens.safetensors'));
  });
}

/** A folder for one test file; it is removed in the end. */
export async function temporaryFolder(): Promise<(...names: string[]) => string> {
  const folder = await mkdtemp(join(tmpdir(), 'alitok-e2e-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return (...names) => join(folder, ...names);
}
