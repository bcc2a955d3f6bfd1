// Finds TensorFlow's C library on this machine: in Python's package, or in an unpacked or installed libtensorflow. Uses only Node.js.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { NotFound, stampOf } from '../../native/build.js';
import { pythonPackage } from '../../native/python.js';

/** The header by which a TensorFlow is recognized. */
const CORE = 'tensorflow/c/eager/c_api.h';
const FRAMEWORK = 'libtensorflow_framework.so.2';
/** What the library with the C API is called in Python's package, and in libtensorflow. */
const LIBRARIES = { package: 'libtensorflow_cc.so.2', folder: 'libtensorflow.so.2' };
/** The oldest version that tfjs-node 4.22 is written for. */
const OLDEST = [2, 9];

export const REMEDY =
  'install one (pip install tensorflow; with CUDA: pip install tensorflow[and-cuda]), or set TENSORFLOW to its folder';

const text = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : '');
const entries = (path) => (existsSync(path) ? readdirSync(path) : []);

/** The version that the headers define, or else that of Python's package; undefined if neither says. */
function versionOf(include, path) {
  const headers = ['release_version.h', 'version.h'].map((name) =>
    text(join(include, 'tensorflow/core/public', name)),
  );
  const part = (name) => new RegExp(`#define TF_${name}_VERSION\\s+(\\d+)`).exec(headers.join('\n'))?.[1];
  const parts = ['MAJOR', 'MINOR', 'PATCH'].map(part);
  if (parts.every((one) => one !== undefined)) return parts.join('.');
  const info = /^(?:tensorflow|tf_nightly)(?:_cpu|_gpu|_rocm|_cpu_aws)?-(\d.*)\.dist-info$/;
  return entries(dirname(path))
    .map((name) => info.exec(name)?.[1])
    .find((version) => version !== undefined);
}

/** The version of CUDA that Python's package was built for; '' if without CUDA, undefined if it does not say. */
function cudaOf(path) {
  const info = text(join(path, 'python/platform/build_info.py'));
  if (/'is_cuda_build'[,:]\s*False/.test(info)) return '';
  return /'cuda_version'[,:]\s*'([^']+)'/.exec(info)?.[1];
}

/**
 * The folders of CUDA's libraries that pip has installed beside TensorFlow, which opens them by name when it first needs them.
 * Packages for CUDA are built with run paths to these folders (`cuda_rpath_flags` of TensorFlow's build), but not in every
 * version and library. Where a library has no run path of its own, the loader searches the DT_RPATH of what has loaded it, which
 * is our module. (A DT_RUNPATH would not count there.)
 */
const cudaFolders = (path) =>
  entries(join(path, '../nvidia'))
    .map((name) => join(path, '../nvidia', name, 'lib'))
    .filter((folder) => existsSync(folder));

/** A TensorFlow in Python's package, which may lack parts. */
const inPackage = (path) => ({
  path,
  include: join(path, 'include'),
  lib: path,
  library: LIBRARIES.package,
  cuda: cudaOf(path),
  runPaths: [path, ...cudaFolders(path)],
});

/** A libtensorflow in a folder with `include` and `lib`. */
function inFolder(path) {
  const include = [join(path, 'include'), join(path, 'include/tensorflow')].find((folder) =>
    existsSync(join(folder, CORE)),
  );
  const libs = ['lib', 'lib64', 'lib/x86_64-linux-gnu', 'lib/aarch64-linux-gnu'].map((name) =>
    join(path, name),
  );
  const lib = libs.find((folder) => existsSync(join(folder, LIBRARIES.folder)));
  if (!include && !lib) return undefined;
  return {
    path,
    include: include ?? join(path, 'include'),
    lib: lib ?? libs[0],
    library: LIBRARIES.folder,
    cuda: undefined,
    runPaths: [lib ?? libs[0]],
  };
}

const isPackage = (path) => basename(path) === 'tensorflow' && existsSync(join(path, 'python'));

/** A TensorFlow in a named folder: that of the package, one with packages, a virtual environment, or a libtensorflow. */
function inNamed(path) {
  const environments = ['lib', 'lib64'].flatMap((lib) =>
    entries(join(path, lib))
      .filter((name) => name.startsWith('python'))
      .map((name) => join(path, lib, name, 'site-packages/tensorflow')),
  );
  const found = [path, join(path, 'tensorflow'), ...environments].find(isPackage);
  return found ? inPackage(found) : inFolder(path);
}

/** What makes a TensorFlow unusable, with the remedy; undefined if nothing does. */
function problemOf({ path, include, lib, library, version }) {
  const name = `TensorFlow ${version ? `${version} ` : ''}in ${path}`;
  const [major, minor] = version?.split('.').map(Number) ?? [];
  const old = major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]);
  if (old)
    return `${name} is older than ${OLDEST.join('.')}: install a newer one (pip install -U tensorflow)`;
  for (const file of [library, FRAMEWORK])
    if (!existsSync(join(lib, file)))
      return library === LIBRARIES.package
        ? `${name} has no ${file}, without which it can only be used from Python: install a newer one (pip install -U tensorflow)`
        : `${name} has no ${join(lib, file)}: unpack libtensorflow again, or pip install tensorflow`;
  if (!existsSync(join(include, CORE)))
    return `${name} has no ${join(include, CORE)}: install it again (pip install --force-reinstall tensorflow)`;
  return undefined;
}

/** Whether a folder has a usable TensorFlow. */
export const isTensorFlow = (path) => {
  const found = inNamed(path);
  return (
    found !== undefined &&
    problemOf({ ...found, version: versionOf(found.include, found.path) }) === undefined
  );
};

/**
 * Finds a TensorFlow: its folder, version, CUDA version, headers (`include`), libraries, and the folders that the loader is to
 * search (`runPaths`). If a folder is named ($TENSORFLOW by default), it is used, and it is an error if it has no TensorFlow.
 * Otherwise looks in Python's package, then in /usr/local and /usr; undefined if there is none.
 * @throws NotFound if there is one which cannot be used
 */
export function findTensorFlow(named = process.env.TENSORFLOW, system = ['/usr/local', '/usr']) {
  const complete = (found) => {
    const { path, include, lib, library } = found;
    const version = versionOf(include, path);
    const libraries = [library, FRAMEWORK].map((name) => join(lib, name));
    return { ...found, version, libraries, problem: problemOf({ ...found, version }) };
  };
  if (named) {
    const found = inNamed(named);
    if (!found)
      throw new Error(
        `TENSORFLOW is ${named}, where no TensorFlow is: name a virtual environment, the folder of Python's package tensorflow, or an unpacked libtensorflow`,
      );
    const one = complete(found);
    if (one.problem) throw new Error(one.problem);
    return one;
  }
  const python = pythonPackage('tensorflow');
  const all = [python && inNamed(python), ...system.map(inFolder)].filter(Boolean).map(complete);
  const usable = all.find(({ problem }) => problem === undefined);
  if (!usable && all.length > 0) throw new NotFound(all[0].problem);
  return usable;
}

/** Text that identifies a TensorFlow: it differs for every other one, even one installed later in the same place. */
export const fingerprint = ({ include, libraries, version, cuda, runPaths }) =>
  [version, cuda, include, ...libraries.map(stampOf), ...runPaths].join('\n');
