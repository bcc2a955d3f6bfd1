// Builds tfjs-node's binding to the TensorFlow of this machine with the system's C++ compiler: `npm run build:tensorflow`. If
// there is no tfjs-node, it is fetched, and if there is no TensorFlow, tfjs-node's own is downloaded; with --if-found, neither
// happens, a missing TensorFlow or compiler is not an error, and nothing is done if nothing has changed.
// Uses only Node.js, so that it also runs while packages are being installed.
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
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
import { CompilerError, runCompiler } from '../../native/compile.js';
import { downloadTensorFlow, fetchPackage } from './fetch.js';
import { findTensorFlow, fingerprint, isTensorFlow, REMEDY } from './tensorflow.js';

const { findPackage, PACKAGES } = createRequire(import.meta.url)('./package.cjs');

const here = dirname(fileURLToPath(import.meta.url));
const OUTPUT = join(ROOT, 'dist/engine/tensorflow');
const output = join(OUTPUT, 'binding.node');
const quiet = join(OUTPUT, 'quiet.node');
/** The record of what the binding was built from, apart from the compiler, and whether the build failed. */
const RECORD = `${output}.json`;

const moduleFlags = (nodeHeaders) => [
  '-std=c++17',
  '-O2',
  '-fPIC',
  '-shared',
  '-DNAPI_VERSION=8',
  `-I${nodeHeaders}`,
];

const compileFlags = (tensorflow, found) => [
  `-DALITOK_CUDA="${tensorflow.cuda ?? 'unknown'}"`,
  `-I${join(found.path, 'binding')}`,
  `-I${tensorflow.include}`,
];

const linkFlags = ({ libraries, runPaths }) => [
  ...libraries,
  '-ldl',
  ...runPaths.map((folder) => `-Wl,-rpath,${folder}`),
  // DT_RPATH, not DT_RUNPATH: it also counts when TensorFlow's libraries open those of CUDA (`cudaFolders`).
  '-Wl,--disable-new-dtags',
  // A symbol that another TensorFlow lacks is an error when the binding is loaded, and does not end the process later.
  '-Wl,-z,now',
];

/** Compiles a source to a module, which appears when it is complete. */
async function make(compiler, source, module, flags) {
  await runCompiler(compiler, [join(here, source), '-o', `${module}.partial`, ...flags]);
  renameSync(`${module}.partial`, module);
}

/** tfjs-node, which is fetched if this build was asked for. */
function getPackage() {
  const found = findPackage();
  if (found) return found;
  if (ifFound) throw new NotFound(`${PACKAGES.join(' or ')} is not installed`);
  return fetchPackage();
}

async function build() {
  const record = readRecord(RECORD);
  // With --if-found, the TensorFlow that was named for the last build is used again.
  const before = ifFound && record.named && isTensorFlow(record.named) ? record.named : undefined;
  const named = process.env.TENSORFLOW || before;
  const found = getPackage();
  const tensorflow = findTensorFlow(named);
  if (!tensorflow) {
    if (ifFound) throw new NotFound(`no TensorFlow found: ${REMEDY}`);
    const why = 'no TensorFlow was found';
    const { name, downloaded } = found.downloaded ? found : downloadTensorFlow(found, why);
    console.log(`${why}; the engine uses the one that ${name} has downloaded (${downloaded})`);
    return;
  }
  const from = [
    fingerprint(tensorflow),
    `${found.name} ${found.version} ${found.path}`,
    ...timesOf(join(found.path, 'binding')),
    ...timesOf(here),
  ].join('\n');
  // With --if-found, a build is not repeated if nothing has changed, even if it failed.
  if (ifFound && record.from === from && (record.failed || existsSync(output))) return;
  const compiler = process.env.CXX || 'c++';
  const flags = moduleFlags(findNodeHeaders());
  await runCompiler(compiler, ['--version']);
  const { path, version, cuda } = tensorflow;
  const name = `TensorFlow ${[version, cuda && `for CUDA ${cuda}`].filter(Boolean).join(' ')}`.trim();
  console.log(`building the tensorflow engine for ${name} in ${path}`);
  mkdirSync(OUTPUT, { recursive: true });
  const made = { tensorflow: path, version, cuda, package: `${found.name} ${found.version}`, named, from };
  const own = [...flags, ...compileFlags(tensorflow, found), ...linkFlags(tensorflow)];
  try {
    await make(compiler, 'quiet.cc', quiet, flags);
    await make(compiler, 'module.cc', output, own);
  } catch (error) {
    if (error instanceof CompilerError) writeFileSync(RECORD, JSON.stringify({ ...made, failed: true }));
    throw error;
  }
  writeFileSync(RECORD, JSON.stringify(made));
  console.log(`built ${output} against ${name}; it serves ${PACKAGES.join(' and ')}`);
}

await runBuild('build:tensorflow', build);
