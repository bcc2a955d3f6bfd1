// Builds the bridge to PyTorch with the system's C++ compiler: `npm run build:libtorch`. With --if-found, a missing
// libtorch or compiler is not an error, and nothing is done if nothing has changed.
// Uses only Node.js, so that it also runs while packages are being installed.
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  findNodeHeaders,
  ifFound,
  NotFound,
  ROOT,
  readRecord,
  runBuild,
  timesOf,
} from '../../native/build.js';
import { CompilerError, compileObjects, firstError, runCompiler } from '../../native/compile.js';
import {
  cudaHeaders,
  distributedFlags,
  findLibtorch,
  fingerprint,
  hasCuda,
  headerFlags,
  isLibtorch,
} from './libtorch.js';
import { findNvcc, writeKernels } from './nvcc.js';

const here = dirname(fileURLToPath(import.meta.url));
const output = join(ROOT, 'dist/engine/libtorch/bridge.node');
const OBJECTS = `${output}.objects`;
/** The record of what the bridge was built from, apart from the compiler, and whether the build failed. */
const RECORD = `${output}.json`;
/** The one source that needs features that some builds of libtorch lack. */
const DISTRIBUTED = 'distributed.cc';
/** The one source whose interfaces an older PyTorch lacks: its measurements are left out then (src/engine/measurements.ts). */
const MEASUREMENTS = 'measurements.cc';
/** The folder of the sources for CUDA devices, which need CUDA's headers, and of the kernels' texts. */
const CUDA = join(here, 'cuda');
/** The CUDA source whose interfaces an older PyTorch lacks: no graph is captured then. */
const GRAPH = 'graph.cc';
/** Declarations shared by the kernels and the code that launches them. */
const ARGUMENTS = 'arguments.cuh';
/** The CUDA source that includes the kernels. */
const DEVICE = 'device.cc';

const REMEDY =
  'install one (Debian, Ubuntu: apt-get install libtorch-dev; anywhere: pip install torch), or set LIBTORCH to its folder';

function compileFlags(libtorch, nodeHeaders) {
  return [
    '-std=c++20',
    '-O3',
    '-fPIC',
    '-fopenmp', // PyTorch's headers run in parallel only with it
    // Sums may be reordered, for vectorization; infinities and NaN are kept, because guards check for them.
    ...[
      '-fno-math-errno',
      '-fno-trapping-math',
      '-fno-signed-zeros',
      '-fassociative-math',
      '-freciprocal-math',
    ],
    '-Wno-psabi',
    '-Wno-deprecated-declarations', // PyTorch's own headers
    `-I${nodeHeaders}`,
    ...headerFlags(libtorch),
    '-pthread',
  ];
}

function linkFlags(libtorch) {
  const { lib } = libtorch;
  return [
    '-shared',
    '-fopenmp',
    '-pthread',
    ...(lib ? [`-L${lib}`, `-Wl,-rpath,${lib}`] : []),
    // All symbols are resolved when the bridge is loaded: a symbol that another libtorch lacks is an error then, and does
    // not end the process at the first call.
    '-Wl,-z,now',
    '-Wl,--no-as-needed', // libtorch_cuda registers its kernels when it is loaded; nothing in the bridge names them
    '-ltorch',
    '-ltorch_cpu',
    '-lc10',
    ...(hasCuda(libtorch) ? ['-ltorch_cuda', '-lc10_cuda', '-ldl'] : []),
  ];
}

async function build() {
  const record = readRecord(RECORD);
  // With --if-found, the libtorch that was named for the last build is used again.
  const before = ifFound && record.named && isLibtorch(record.named) ? record.named : undefined;
  const named = process.env.LIBTORCH || before;
  const libtorch = findLibtorch(named);
  if (!libtorch) throw new NotFound(`no libtorch found: ${REMEDY}`);
  const { lib } = libtorch;
  const conditions = fingerprint(libtorch);
  const headers = cudaHeaders(libtorch);
  const nvcc = headers && findNvcc(headers.major);
  const from = [conditions, ...timesOf(here), JSON.stringify([headers, nvcc])].join('\n');
  // With --if-found, a build is not repeated if nothing has changed, even if it failed.
  if (ifFound && record.from === from && (record.failed || existsSync(output))) return;
  const compiler = process.env.CXX || 'c++';
  const flags = compileFlags(libtorch, findNodeHeaders());
  await runCompiler(compiler, ['--version']);
  console.log('building the libtorch engine, which can take a few minutes');
  mkdirSync(OBJECTS, { recursive: true });
  const cuda = hasCuda(libtorch);
  const made = { libtorch: lib ?? '/usr', cuda, named, from };
  let kernels;
  try {
    kernels = await make(libtorch, compiler, flags, conditions, headers, nvcc);
  } catch (error) {
    if (error instanceof CompilerError) writeFileSync(RECORD, JSON.stringify({ ...made, failed: true }));
    throw error;
  }
  writeFileSync(RECORD, JSON.stringify(made));
  let what = cuda ? ', with CUDA' : '';
  if (kernels?.length > 0) what += ` kernels for ${kernels.join(', ')}`;
  else if (kernels) what += '; CUDA kernels are compiled when they are first used';
  console.log(`built ${output} against ${lib ?? 'the system’s libtorch'}${what}`);
}

const filesOf = (folder, ending) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name));

/** The sources for CUDA devices, with CUDA's `headers` and the header of the kernels. */
function cudaSources(flags, headers, kernels) {
  const own = [...headers.include.map((path) => `-idirafter${path}`), `-I${OBJECTS}`];
  return filesOf(CUDA, '.cc').map((file) => ({
    file,
    name: `cuda-${basename(file)}`, // a source outside this folder may have the same name
    flags: [...flags, ...own],
    optional: basename(file) === GRAPH,
    includes: [
      ...filesOf(here, '.h'),
      ...filesOf(CUDA, ARGUMENTS),
      ...(basename(file) === DEVICE ? [kernels] : []),
    ],
  }));
}

/** The parts that the bridge can be built without, with their names in messages. */
const PARTS = { kernels: 'CUDA kernels', distributed: 'work over several processes' };

/** The part that caused an error, of those still to be built; undefined if it has another cause. */
function culprit({ file, stderr }, parts) {
  if (file) {
    if (dirname(file) === CUDA) return 'kernels';
    return basename(file) === DISTRIBUTED && parts.distributed ? 'distributed' : undefined;
  }
  // The linker names the object file, if it names any.
  const named = stderr.includes(`${sep}cuda-`) ? ['kernels', 'distributed'] : ['distributed', 'kernels'];
  return named.find((part) => parts[part]);
}

/**
 * Compiles and links the bridge. The CUDA kernels, or work over several processes, are left out if they cannot be
 * compiled: the rest is useful without them. Returns the devices that it has kernels for; undefined if the kernels are
 * left out.
 */
async function make(libtorch, compiler, flags, conditions, headers, nvcc) {
  const objects = { folder: OBJECTS, conditions };
  const partial = `${output}.partial`;
  const distributed = distributedFlags(compiler, libtorch);
  const parts = { distributed: distributed.length > 0, kernels: headers !== undefined };
  const without = (part, reason) => console.error(`build:libtorch: without ${PARTS[part]}: ${reason}`);
  if (hasCuda(libtorch) && !headers)
    without('kernels', 'the headers of its CUDA are missing (set CUDA_HOME)');
  const kernels = headers && (await writeKernels(CUDA, nvcc, OBJECTS));
  if (kernels?.error) console.error(`build:libtorch: nvcc failed: ${kernels.error}`);
  const makeWith = async () => {
    const sources = filesOf(here, '.cc').map((file) => ({
      file,
      flags: basename(file) === DISTRIBUTED && parts.distributed ? [...flags, ...distributed] : flags,
      optional: basename(file) === MEASUREMENTS,
    }));
    if (parts.kernels) sources.push(...cudaSources(flags, headers, kernels.header));
    const files = await compileObjects(compiler, sources, objects);
    await runCompiler(compiler, ['-o', partial, ...files, ...linkFlags(libtorch)]);
  };
  for (let done = false; !done; ) {
    try {
      await makeWith();
      done = true;
    } catch (error) {
      const part = error instanceof CompilerError ? culprit(error, parts) : undefined;
      if (!part) throw error;
      parts[part] = false;
      without(part, firstError(error));
    }
  }
  renameSync(partial, output);
  return parts.kernels ? kernels.devices : undefined;
}

await runBuild('build:libtorch', build);
