// Finds PyTorch's C++ library on this machine and detects its features. Uses only Node.js.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stampOf } from '../../native/build.js';
import { pythonPackage } from '../../native/python.js';

const here = dirname(fileURLToPath(import.meta.url));

/** The header by which a libtorch is recognized. */
const CORE = 'include/ATen/ATen.h';

/** Whether a folder contains a libtorch. */
export const isLibtorch = (path) => existsSync(join(path, CORE));

/**
 * Finds a libtorch: its folders of headers, its folder of libraries (undefined if the linker knows it), and the header that
 * it was found by. If a folder is named ($LIBTORCH by default), it is used, and it is an error if it has no libtorch.
 * Otherwise looks in Python's torch package, then where Debian and Ubuntu put libtorch-dev; undefined if there is none.
 */
export function findLibtorch(named = process.env.LIBTORCH) {
  const debian = { include: ['/usr/include'], lib: undefined, core: '/usr/include/ATen/ATen.h' };
  const folder = (path) => ({
    include: [join(path, 'include')],
    lib: join(path, 'lib'),
    core: join(path, CORE),
  });
  if (named) {
    if (!isLibtorch(named)) throw new Error(`LIBTORCH is ${named}, but ${join(named, CORE)} does not exist`);
    return folder(named);
  }
  const path = pythonPackage('torch');
  return [...(path ? [folder(path)] : []), debian].find(({ core }) => existsSync(core));
}

/** The headers that define the version. In newer versions the first only includes the second. */
const VERSIONS = ['torch/csrc/api/include/torch/version.h', 'torch/headeronly/version.h'];
const LIBRARIES = ['libc10.so', 'libtorch_cpu.so', 'libtorch_cuda.so'];

/** Text that identifies a libtorch: it differs for every other one, even one installed later in the same place. */
export function fingerprint({ include, lib, core }) {
  const versions = include.flatMap((path) => VERSIONS.map((name) => join(path, name)));
  const libraries = lib ? LIBRARIES.map((name) => join(lib, name)) : [];
  return [
    ...versions.filter((path) => existsSync(path)).map((path) => readFileSync(path, 'utf8')),
    ...[core, ...libraries].filter((path) => existsSync(path)).map(stampOf),
  ].join('\n');
}

/** Whether the library was built for CUDA. */
export const hasCuda = ({ lib }) => lib !== undefined && existsSync(join(lib, 'libtorch_cuda.so'));

/** The version of CUDA that the library was built for, such as 13; undefined if its files do not say. */
function cudaMajor({ lib }) {
  const library = join(lib, 'libc10_cuda.so');
  if (!existsSync(library)) return undefined;
  const [, major] = /libcudart(?:-[0-9a-f]+)?\.so\.(\d+)/.exec(readFileSync(library, 'latin1')) ?? [];
  return major === undefined ? undefined : Number(major);
}

/**
 * CUDA's headers for a libtorch: the folders, best first, and their version, such as 13. They come from Python's packages
 * beside torch, from $CUDA_HOME, or from the system. Undefined if there are none, or if their version is not the library's:
 * they may declare functions that the library lacks, and then the whole bridge would not load.
 */
export function cudaHeaders(libtorch) {
  if (!hasCuda(libtorch)) return undefined;
  const nvidia = join(libtorch.lib, '../../nvidia');
  const parts = existsSync(nvidia) ? readdirSync(nvidia).map((name) => join(nvidia, name, 'include')) : [];
  const cudaHome = process.env.CUDA_HOME || '/usr/local/cuda';
  const include = [...parts, join(cudaHome, 'include'), '/usr/include'].filter((path) => existsSync(path));
  const [runtime] = include
    .map((path) => join(path, 'cuda_runtime_api.h'))
    .filter((path) => existsSync(path));
  const [, version] =
    (runtime && /#define\s+CUDART_VERSION\s+(\d+)/.exec(readFileSync(runtime, 'utf8'))) ?? [];
  if (version === undefined) return undefined;
  const major = Math.floor(Number(version) / 1000);
  return major === (cudaMajor(libtorch) ?? major) ? { include, major } : undefined;
}

/** Whether the library was built with the C++11 ABI of std::string; code that uses it must use the same. */
function cxx11Abi({ lib }) {
  const library = join(lib, 'libc10.so');
  return !existsSync(library) || readFileSync(library).includes('NSt7__cxx1112basic_string');
}

/** Compiler flags for libtorch's headers. */
export const headerFlags = ({ include, lib }) => [
  ...include.flatMap((path) => [`-I${path}`, `-I${join(path, 'torch/csrc/api/include')}`]),
  ...(lib ? [`-D_GLIBCXX_USE_CXX11_ABI=${cxx11Abi({ lib }) ? 1 : 0}`] : []),
];

/** Whether a library has the class `c10d::NAME`, by linking its destructor. */
function hasGroup(compiler, library, lib, name) {
  const symbol = `_ZN4c10d${name.length}${name}D1Ev`;
  const program = `void ${symbol}(void); int main() { ${symbol}(); }`;
  const flags = ['-x', 'c', '-', '-o', '/dev/null', ...(lib ? [`-L${lib}`] : []), `-l${library}`];
  const ignoring = '-Wl,--unresolved-symbols=ignore-in-shared-libs';
  return spawnSync(compiler, [...flags, ignoring], { input: program }).status === 0;
}

/** Compiler flags for the communication backends that this libtorch has: Gloo, and NCCL if it has CUDA. */
export function distributedFlags(compiler, libtorch) {
  const { include, lib } = libtorch;
  const headers = join('torch/csrc/distributed/c10d', 'ProcessGroupGloo.hpp');
  if (!include.some((path) => existsSync(join(path, headers)))) return [];
  const flags = [];
  if (hasGroup(compiler, 'torch_cpu', lib, 'ProcessGroupGloo')) flags.push('-DUSE_C10D_GLOO');
  if (hasCuda(libtorch) && hasGroup(compiler, 'torch_cuda', lib, 'ProcessGroupNCCL')) {
    const { include: found = [] } = cudaHeaders(libtorch) ?? {};
    if (found.some((path) => existsSync(join(path, 'nccl.h'))))
      flags.push('-DUSE_C10D_NCCL', ...found.map((path) => `-idirafter${path}`));
  }
  return flags.length > 0 ? [...flags, `-idirafter${join(here, 'declarations')}`] : [];
}
