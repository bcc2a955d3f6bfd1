// Compiles C++ sources to object files, several at a time, and only those that are out of date. Uses only Node.js.
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

/** The memory that one compiler process needs for PyTorch's headers, in bytes. */
const MEMORY_OF_ONE = 1.5 * 2 ** 30;

/** A compiler that cannot be started. */
export class NoCompiler extends Error {}

/** A compiler that failed; `stderr` is its output, and `file` the source that it was compiling, if any. */
export class CompilerError extends Error {
  constructor(compiler, stderr) {
    super(`${compiler} failed:\n${stderr}`);
    this.stderr = stderr;
    this.file = undefined;
  }
}

/** The first line of a compiler's output that mentions an error. */
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

/** How many compilers may run at once: one for each processor, as far as memory allows. */
function jobs() {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / MEMORY_OF_ONE)));
}

/**
 * Compiles `sources`, each `{ file, flags, optional, name, includes }`, and returns their object files in `folder`. An optional
 * source that does not compile is left out; `name` is the object's name, by default that of the source; `includes` are
 * further files that the source depends on. A source is compiled again if it, a header beside it or one of its `includes` is
 * newer than its object file, or if its flags or `conditions` (text: everything else it depends on) have changed.
 * Throws NoCompiler or CompilerError, once no compiler is running any more.
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
