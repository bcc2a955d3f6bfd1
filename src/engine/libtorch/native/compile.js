// Compiles C++ sources to object files, several at a time, and those alone that are not up to date. Uses nothing but Node.
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, freemem } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** What one compiler takes for PyTorch's headers, in bytes. */
const MEMORY_OF_ONE = 1.5 * 2 ** 30;

/** A compiler that cannot be started. */
export class NoCompiler extends Error {}

/** A compiler that refused; `stderr` is what it said, and `file` the source, where it was compiling one. */
export class CompilerError extends Error {
  constructor(compiler, stderr) {
    super(`${compiler} failed:\n${stderr}`);
    this.stderr = stderr;
    this.file = undefined;
  }
}

/** The line of what it said that tells what is wrong. */
export const firstError = ({ stderr }) => stderr.split('\n').find((line) => line.includes('error')) ?? stderr;

/** Runs a compiler. Throws NoCompiler or CompilerError. */
export function runCompiler(compiler, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    child.on('error', ({ code }) =>
      reject(new NoCompiler(`the C++ compiler ${compiler} cannot be run (${code}): install one, or set CXX`)),
    );
    child.on('close', (status, signal) => {
      if (status === 0) resolve();
      else reject(new CompilerError(compiler, stderr || `it was ended by ${signal}`));
    });
  });
}

/** Time of the latest change of a header beside a source, which every source may include. */
function headersChanged(folder) {
  const headers = readdirSync(folder, { recursive: true }).filter((name) => /\.h(pp)?$/.test(name));
  return Math.max(0, ...headers.map((name) => statSync(join(folder, name)).mtimeMs));
}

/** How many compilers may run at once: one for each processor, as far as the memory goes. */
function jobs() {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / MEMORY_OF_ONE)));
}

/**
 * The object files of `sources`, each `{ file, flags, optional, name, includes }`, in `folder`. An optional one that the compiler
 * refuses is left out; `name` is the object's, if not the source's; `includes` are further files that it is made of. One is
 * compiled again where its source, a header beside it or what it includes is newer, or where its flags or `conditions` (text:
 * all else that it depends on) are others than the last time.
 * Throws NoCompiler or CompilerError, once no compiler runs any more.
 */
export async function compileObjects(compiler, sources, { folder, conditions }) {
  mkdirSync(folder, { recursive: true });
  const waiting = sources.map(({ file, flags, optional = false, name = basename(file), includes = [] }) => {
    const object = join(folder, `${name}.o`);
    return {
      file,
      includes,
      flags,
      optional,
      object,
      made: `${object}.txt`,
      how: [compiler, ...flags, conditions].join('\n'),
    };
  });
  const isCurrent = ({ file, includes, object, made, how }) =>
    existsSync(object) &&
    existsSync(made) &&
    readFileSync(made, 'utf8') === how &&
    statSync(object).mtimeMs >
      Math.max(...[file, ...includes].map((path) => statSync(path).mtimeMs), headersChanged(dirname(file)));
  const stale = waiting.filter((one) => !isCurrent(one));
  const errors = [];
  const leftOut = new Set();
  const work = async () => {
    for (let one = stale.shift(); one && errors.length === 0; one = stale.shift()) {
      const { file, flags, optional, object, made, how } = one;
      try {
        await runCompiler(compiler, [...flags, '-c', file, '-o', `${object}.partial`]);
        renameSync(`${object}.partial`, object);
        writeFileSync(made, how);
      } catch (error) {
        if (error instanceof CompilerError) error.file = file;
        if (optional && error instanceof CompilerError) leftOut.add(object);
        else errors.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: jobs() }, work));
  if (errors.length > 0) throw errors[0];
  return waiting.map(({ object }) => object).filter((object) => !leftOut.has(object));
}
