// Prepares the CUDA kernels that the bridge is compiled with: their text, and nvcc's code. Uses only Node.js.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CompilerError, firstError, runCompiler } from '../../native/compile.js';

/** The file that the kernels' text begins with. */
const PRELUDE = 'prelude.cuh';

/**
 * The devices that nvcc compiles for: those of compute capability 8 (all but Jetson run the code of sm_80) and 9. Newer
 * devices, which nvcc may not know yet, use the PTX of the newest: their driver compiles it once and caches the result. The
 * PTX of sm_80 is for devices of capability 8 that do not run the code of sm_80 (Jetson). For older devices, and for drivers
 * that are older than nvcc and so do not accept its PTX, the text is compiled when the kernels are first used.
 */
const DEVICES = [80, 90];

const FLAGS = [
  ...['-fatbin', '-std=c++17', '-O3'],
  '--threads=0', // compiles for all devices in parallel
  '--allow-unsupported-compiler', // the texts include no headers of the host compiler
  '--diag-suppress=177', // warnings of unused functions
  ...DEVICES.map((device) => `-gencode=arch=compute_${device},code=[sm_${device},compute_${device}]`),
];

/** The text of all kernels: the prelude, then the other files by name. Errors are reported by file and line. */
export function kernelText(folder) {
  const names = readdirSync(folder).filter((name) => name.endsWith('.cuh'));
  const others = names.filter((name) => name !== PRELUDE).sort();
  return [PRELUDE, ...others]
    .map((name) => `#line 1 "${name}"\n${readFileSync(join(folder, name), 'utf8')}\n`)
    .join('');
}

/**
 * The nvcc of a version of CUDA, such as 13, with the text of its --version; undefined if there is none. The driver may not
 * load the code of another version's nvcc. Tries $CUDACXX, then looks in $CUDA_HOME, in /usr/local/cuda and in $PATH.
 */
export function findNvcc(major, { CUDACXX, CUDA_HOME } = process.env) {
  const places = [
    CUDACXX,
    CUDA_HOME && join(CUDA_HOME, 'bin/nvcc'),
    '/usr/local/cuda/bin/nvcc',
    'nvcc',
  ].filter(Boolean);
  for (const path of places) {
    const { status, stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
    if (status === 0 && Number(/release (\d+)\./.exec(stdout)?.[1]) === major)
      return { path, version: stdout };
  }
}

/** An array of bytes in C++. */
function bytes(name, buffer) {
  const lines = [];
  for (let i = 0; i < buffer.length; i += 32) lines.push(`${buffer.subarray(i, i + 32).join(',')},`);
  // Aligned, because the driver reads whole words.
  return `alignas(64) static const unsigned char ${name}[] = {\n${lines.join('\n')}\n};\n`;
}

/**
 * Writes the header that device.cc includes to `target`: the text of the kernels in `folder`, and the code that `nvcc`, if
 * any, compiles from it. Returns the header's path, the devices that there is code for, and nvcc's first `error` line if it
 * failed. A header with the same inputs is not written again, so that files that include it are not recompiled.
 */
export async function writeKernels(folder, nvcc, target) {
  const header = join(target, 'kernels.h');
  const text = kernelText(folder);
  const keyOf = (...parts) =>
    `// ${createHash('sha256')
      .update(JSON.stringify([text, ...parts]))
      .digest('hex')}`;
  const write = (key, code) => {
    if (existsSync(header) && readFileSync(header, 'utf8').startsWith(key)) return;
    const has = `constexpr bool HAS_KERNEL_CODE = ${code !== undefined};\n`;
    const content =
      bytes('KERNEL_TEXT', Buffer.from(text)) + has + bytes('KERNEL_CODE', code ?? Buffer.from([0]));
    writeFileSync(header, `${key}\n${content}`);
  };
  const withCode = nvcc && keyOf(nvcc.path, nvcc.version, FLAGS);
  const devices = DEVICES.map((device) => `sm_${device}`);
  if (withCode && existsSync(header) && readFileSync(header, 'utf8').startsWith(withCode))
    return { header, devices };
  let error;
  if (nvcc) {
    const source = join(target, 'kernels.cu');
    const output = join(target, 'kernels.fatbin');
    try {
      writeFileSync(source, text);
      await runCompiler(nvcc.path, [...FLAGS, '-o', output, source]);
      write(withCode, readFileSync(output));
      return { header, devices };
    } catch (cause) {
      error = cause instanceof CompilerError ? firstError(cause) : cause.message;
    } finally {
      for (const file of [source, output]) rmSync(file, { force: true });
    }
  }
  write(keyOf());
  return { header, devices: [], error };
}
