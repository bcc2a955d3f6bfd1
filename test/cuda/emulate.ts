import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { compileObjects, runCompiler } from '../../src/engine/libtorch/native/compile.js';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { findLibtorch, fingerprint } from '../../src/engine/libtorch/native/libtorch.js';

// Kernels for CUDA devices, compiled for the processor (emulator.h).

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const KERNELS = here('../../src/engine/libtorch/native/cuda/');
const RECORD = here('../../dist/engine/libtorch/bridge.node.json');
/** What is compiled stays here, and is compiled again where a source, the compiler or PyTorch has changed. */
const CACHE = here('../../node_modules/.cache/alitok-emulator/');

const compiler = process.env.CXX || 'c++';

/** The kernels' text, its files in the order in which the bridge has them. */
function kernelText(): string {
  const names = readdirSync(KERNELS).filter((name) => name.endsWith('.cuh') && name !== 'prelude.cuh');
  return ['prelude.cuh', ...names.sort()].map((name) => readFileSync(join(KERNELS, name), 'utf8')).join('\n');
}

/** The kernels that a text defines, by their names once its macros are expanded. */
function namesOf(text: string): string[] {
  const { stdout } = spawnSync(compiler, ['-E', '-P', '-x', 'c++', '-'], { input: text, encoding: 'utf8' });
  return [...stdout.matchAll(/extern "C" __global__ void (\w+)\(/g)].map(([, name]) => name);
}

/** Writes a file unless it is so already: then nothing is compiled again for it. */
function write(name: string, text: string): void {
  const path = join(CACHE, name);
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text);
}

/** Compiles the module, for the libtorch that the bridge is built for; gives its path. */
async function build(): Promise<string> {
  mkdirSync(CACHE, { recursive: true });
  const { libtorch: lib } = JSON.parse(readFileSync(RECORD, 'utf8')) as { libtorch: string };
  const libtorch = findLibtorch(lib.endsWith('/lib') && lib !== '/usr/lib' ? lib.slice(0, -4) : undefined);
  const text = kernelText();
  write('kernels.inc', text);
  write(
    'names.inc',
    `${namesOf(text)
      .map((name) => `ENTRY(${name})`)
      .join('\n')}\n`,
  );
  const include = [
    CACHE,
    KERNELS,
    here('.'),
    here('../../node_modules/node-api-headers/include'),
    ...libtorch.include,
  ];
  const flags = [
    '-std=c++20',
    '-O2',
    '-fPIC',
    '-ffp-contract=off',
    '-Wno-deprecated-declarations',
    ...include.map((path: string) => `-I${path}`),
    ...libtorch.include.map((path: string) => `-I${join(path, 'torch/csrc/api/include')}`),
  ];
  const files = [here('emulator.cc'), here('emulated.cc'), join(KERNELS, 'operators.cc')];
  const sources = files.map((file) => ({ file, flags }));
  const objects = await compileObjects(compiler, sources, {
    folder: join(CACHE, 'objects'),
    conditions: [fingerprint(libtorch), text, ...files.map((file) => statSync(file).mtimeMs)].join('\n'),
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

let loaded: Promise<void> | undefined;

/**
 * Adds the operators of kernels of ours to PyTorch, for tensors on the CPU, as `alitok_emulated::NAME`. The bridge is to be
 * loaded already, or to be loaded from the same libtorch.
 */
export function loadEmulated(): Promise<void> {
  loaded ??= build().then((module) => void createRequire(import.meta.url)(module));
  return loaded;
}
