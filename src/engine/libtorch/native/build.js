// Builds the bridge to PyTorch with the system's C++ compiler: `npm run build:libtorch`. With --if-found, a machine
// without a libtorch or a compiler is no error.
// It looks for a libtorch in $LIBTORCH, then in Python's torch package, then where Debian and Ubuntu put libtorch-dev.
// Uses nothing but Node, so that it also runs while packages are being installed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../../../..');
const output = join(root, 'dist/engine/libtorch/bridge.node');

const REMEDY =
  'install one (Debian, Ubuntu: apt-get install libtorch-dev; anywhere: pip install torch), or set LIBTORCH to its folder';

/** Something that the build needs is not on this machine. */
class NotFound extends Error {}

/** The first of the candidates that has the header and the library. */
function findLibtorch() {
  const python = () => {
    for (const name of ['python3', '/usr/bin/python3', 'python']) {
      const script = 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])';
      const { status, stdout } = spawnSync(name, ['-c', script], { encoding: 'utf8' });
      if (status === 0) return stdout.trim();
    }
  };
  const debian = { include: ['/usr/include'], lib: undefined, core: '/usr/include/ATen/ATen.h' };
  const folder = (path) => ({
    include: [join(path, 'include')],
    lib: join(path, 'lib'),
    core: join(path, 'include/ATen/ATen.h'),
  });
  const { LIBTORCH } = process.env;
  if (LIBTORCH) {
    const named = folder(LIBTORCH);
    if (!existsSync(named.core)) throw new Error(`LIBTORCH is ${LIBTORCH}, but ${named.core} does not exist`);
    return named;
  }
  const path = python();
  return [...(path ? [folder(path)] : []), debian].find(({ core }) => existsSync(core));
}

/** Whether the library was built with the C++11 ABI of std::string, which the bridge must share. */
function cxx11Abi(lib) {
  const library = join(lib, 'libc10.so');
  return !existsSync(library) || readFileSync(library).includes('NSt7__cxx1112basic_string');
}

/** Whether a library has the class `c10d::NAME`, by linking its destructor. */
function hasGroup(compiler, library, lib, name) {
  const symbol = `_ZN4c10d${name.length}${name}D1Ev`;
  const program = `void ${symbol}(void); int main() { ${symbol}(); }`;
  const flags = ['-x', 'c', '-', '-o', '/dev/null', ...(lib ? [`-L${lib}`] : []), `-l${library}`];
  const ignoring = '-Wl,--unresolved-symbols=ignore-in-shared-libs';
  return spawnSync(compiler, [...flags, ignoring], { input: program }).status === 0;
}

/** Flags for the ways of communication between processes that this libtorch has: Gloo, and NCCL where CUDA is. */
function distributedFlags(compiler, { include, lib }, cuda) {
  const headers = join('torch/csrc/distributed/c10d', 'ProcessGroupGloo.hpp');
  if (!include.some((path) => existsSync(join(path, headers)))) return [];
  const flags = [];
  if (hasGroup(compiler, 'torch_cpu', lib, 'ProcessGroupGloo')) flags.push('-DUSE_C10D_GLOO');
  if (cuda && hasGroup(compiler, 'torch_cuda', lib, 'ProcessGroupNCCL')) {
    // Beside Python's torch package lie those of CUDA's parts, each with its headers.
    const nvidia = join(lib, '../../nvidia');
    const parts = existsSync(nvidia) ? readdirSync(nvidia).map((name) => join(nvidia, name, 'include')) : [];
    const cudaHome = process.env.CUDA_HOME ?? '/usr/local/cuda';
    const found = [...parts, join(cudaHome, 'include'), '/usr/include'].filter((path) => existsSync(path));
    const all = ['nccl.h', 'cuda_runtime_api.h'].every((name) =>
      found.some((path) => existsSync(join(path, name))),
    );
    if (all) flags.push('-DUSE_C10D_NCCL', ...found.map((path) => `-idirafter${path}`));
  }
  return flags.length > 0 ? [...flags, `-idirafter${join(here, 'declarations')}`] : [];
}

function compile() {
  const libtorch = findLibtorch();
  if (!libtorch) throw new NotFound(`no libtorch found: ${REMEDY}`);
  const { include, lib } = libtorch;
  const nodeHeaders = [
    join(root, 'node_modules/node-api-headers/include'),
    join(dirname(process.execPath), '../include/node'),
  ].find((path) => existsSync(join(path, 'node_api.h')));
  if (!nodeHeaders) throw new Error('the headers of Node.js are missing: run "npm install node-api-headers"');
  const cuda = lib !== undefined && existsSync(join(lib, 'libtorch_cuda.so'));
  mkdirSync(dirname(output), { recursive: true });
  const partial = `${output}.partial`;
  const sources = readdirSync(here)
    .filter((name) => name.endsWith('.cc'))
    .map((name) => join(here, name));
  const flags = [
    '-std=c++20',
    '-O3',
    '-fPIC',
    '-shared',
    '-fopenmp', // PyTorch's headers run in parallel only with it
    // Sums in any order, for vectors; infinities and NaN stay what they are, for the guards that look for them.
    ...[
      '-fno-math-errno',
      '-fno-trapping-math',
      '-fno-signed-zeros',
      '-fassociative-math',
      '-freciprocal-math',
    ],
    '-Wno-psabi',
    '-Wno-deprecated-declarations', // PyTorch's own headers
    ...[nodeHeaders, ...include].map((path) => `-I${path}`),
    ...include.map((path) => `-I${join(path, 'torch/csrc/api/include')}`),
    ...(lib ? [`-L${lib}`, `-Wl,-rpath,${lib}`, `-D_GLIBCXX_USE_CXX11_ABI=${cxx11Abi(lib) ? 1 : 0}`] : []),
    ...sources,
    '-pthread',
    '-o',
    partial,
    '-Wl,--no-as-needed', // libtorch_cuda registers its kernels when it is loaded; nothing in the bridge names them
    '-ltorch',
    '-ltorch_cpu',
    '-lc10',
    ...(cuda ? ['-ltorch_cuda', '-lc10_cuda'] : []),
  ];
  const compiler = process.env.CXX || 'c++';
  const build = (more) => spawnSync(compiler, [...more, ...flags], { encoding: 'utf8' });
  const distributed = distributedFlags(compiler, libtorch, cuda);
  let { status, stderr, error } = build(distributed);
  if (error)
    throw new NotFound(`the C++ compiler ${compiler} cannot be run (${error.code}): install one, or set CXX`);
  if (status !== 0 && distributed.length > 0) {
    // Everything else is worth having without it.
    const reason = stderr.split('\n').find((line) => line.includes('error')) ?? stderr;
    ({ status, stderr } = build([]));
    if (status === 0) console.error(`build:libtorch: without work over several processes: ${reason}`);
  }
  if (status !== 0) throw new Error(`${compiler} failed:\n${stderr}`);
  renameSync(partial, output);
  writeFileSync(`${output}.json`, `${JSON.stringify({ libtorch: lib ?? '/usr', cuda })}\n`);
  console.log(`built ${output} against ${lib ?? 'the system’s libtorch'}${cuda ? ', with CUDA' : ''}`);
}

const optional = process.argv.includes('--if-found');
try {
  compile();
} catch (error) {
  if (!(optional && error instanceof NotFound)) {
    console.error(`build:libtorch: ${error.message}`);
    process.exitCode = 1;
  }
}
