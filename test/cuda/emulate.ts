import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import * as native from '../../src/engine/libtorch/native/libtorch.js';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { kernelText } from '../../src/engine/libtorch/native/nvcc.js';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { compileObjects, runCompiler } from '../../src/engine/native/compile.js';

// Compiles the CUDA kernels for the CPU (emulator.h).

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const KERNELS = here('../../src/engine/libtorch/native/cuda/');
const RECORD = here('../../dist/engine/libtorch/bridge.node.json');
/** Compiled files are kept here, and compiled again if a source, the compiler or PyTorch has changed. */
const CACHE = here('../../node_modules/.cache/alitok-emulator/');

const compiler = process.env.CXX || 'c++';

/** The names of the kernels that a text defines, after macro expansion. */
function namesOf(text: string): string[] {
  const { stdout } = spawnSync(compiler, ['-E', '-P', '-x', 'c++', '-'], { input: text, encoding: 'utf8' });
  return [...stdout.matchAll(/extern "C" __global__ void (\w+)\(/g)].map(([, name]) => name);
}

/** Writes a file only if its content changes, so that nothing is compiled again needlessly. */
function write(name: string, text: string): void {
  const path = join(CACHE, name);
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text);
}

/** Compiles the module for the libtorch that the bridge is built for, and returns its path. */
async function build(): Promise<string> {
  const { libtorch: lib } = JSON.parse(readFileSync(RECORD, 'utf8')) as { libtorch: string };
  const libtorch = native.findLibtorch(native.isLibtorch(dirname(lib)) ? dirname(lib) : undefined);
  const text = kernelText(KERNELS) as string;
  const entries = namesOf(text).map((name) => `ENTRY(${name})\n`);
  write('kernels.inc', text);
  write('names.inc', entries.join(''));
  const own = [CACHE, KERNELS, here('.'), here('../../node_modules/node-api-headers/include')];
  const flags = [
    ...['-std=c++20', '-O2', '-fPIC', '-ffp-contract=off', '-Wno-deprecated-declarations'],
    ...own.map((path) => `-I${path}`),
    ...native.headerFlags(libtorch),
  ];
  const includes = ['arguments.cuh', 'arguments.h', 'launch.h', 'operators.h', 'tensors.h'].map((name) =>
    join(KERNELS, name),
  );
  includes.push(...['kernels.inc', 'names.inc'].map((name) => join(CACHE, name)));
  const files = [
    here('emulator.cc'),
    here('emulated.cc'),
    ...['operators.cc', 'steps.cc'].map((name) => join(KERNELS, name)),
  ];
  const sources = files.map((file) => ({ file, flags, includes }));
  const objects = await compileObjects(compiler, sources, {
    folder: join(CACHE, 'objects'),
    conditions: native.fingerprint(libtorch),
  });
  const module = join(CACHE, 'emulated.node');
  const linked = libtorch.lib ? [`-L${libtorch.lib}`, `-Wl,-rpath,${libtorch.lib}`] : [];
  await runCompiler(compiler, [
    '-shared',
    '-o',
    `${module}.${process.pid}`,
    ...objects,
    ...linked,
    '-ltorch_cpu',
    '-lc10',
  ]);
  renameSync(`${module}.${process.pid}`, module);
  return module;
}

/** Whether the process that a lock file names is running. */
function lives(lock: string): boolean {
  try {
    return process.kill(Number(readFileSync(lock, 'utf8')), 0);
  } catch {
    return false;
  }
}

/** Builds under a lock, because several test files may need the module at once. */
async function buildAlone(): Promise<string> {
  mkdirSync(CACHE, { recursive: true });
  const lock = join(CACHE, 'lock');
  while (true) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch {
      if (existsSync(lock) && !lives(lock)) rmSync(lock, { force: true });
      await delay(200);
    }
  }
  try {
    return await build();
  } finally {
    rmSync(lock);
  }
}

let loaded: Promise<void> | undefined;

/**
 * Adds the operators of our own kernels to PyTorch, for tensors on the CPU, as `alitok_emulated::NAME`. The bridge must use
 * the same libtorch; it may be loaded before or after.
 */
export function loadEmulated(): Promise<void> {
  loaded ??= buildAlone().then((module) => void createRequire(import.meta.url)(module));
  return loaded;
}
