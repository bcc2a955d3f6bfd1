import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  failure,
  loadNative,
  requirePackage,
  restoreUtilities,
} from '../../../src/engine/tensorflow/binding.js';
import { EngineError } from '../../../src/errors.js';

const built = existsSync('dist/engine/tensorflow/binding.node');

it('a module that does not load says to build it again', async () => {
  const file = join(await mkdtemp(join(tmpdir(), 'alitok-')), 'binding.node');
  expect(loadNative(true, file)).toBeUndefined();
  await writeFile(file, 'not a library');
  expect(() => loadNative(true, file)).toThrow(EngineError);
  expect(() => loadNative(true, file)).toThrow(
    /^the TensorFlow that the binding was built against does not load; run "npm run build:tensorflow" again: .*$/,
  );
});

it('a missing package says what to do', () => {
  expect(requirePackage().version).toBe('4.22.0');
  expect(requirePackage(['@tensorflow/tfjs-node']).name).toBe('@tensorflow/tfjs-node');
  expect(() => requirePackage(['nowhere'])).toThrow(/npm run build:tensorflow/);
});

it('functions that newer versions of Node.js lack or warn of are there for tfjs-node', () => {
  const utilities: Record<string, (value: unknown) => boolean> = {
    isArray: () => {
      throw new Error('deprecated');
    },
  };
  restoreUtilities(utilities);
  expect([null, undefined, 0, ''].map(utilities.isNullOrUndefined)).toEqual([true, true, false, false]);
  expect([[], new Int32Array(1), 'text'].map(utilities.isArray)).toEqual([true, false, false]);
  // These are all that it calls.
  const folder = requirePackage().path;
  const used = execFileSync('grep', ['-rhoE', '\\butil(_1)?\\.is[A-Z]\\w+', `${folder}/dist`], {
    encoding: 'utf8',
  });
  const names = new Set(
    used
      .trim()
      .split('\n')
      .map((name) => name.split('.')[1]),
  );
  expect([...names].sort()).toEqual(['isArray', 'isNullOrUndefined']);
});

it('a failure in TensorFlow is one line with its message, and what to lower if memory ran out', () => {
  const of = (message: string) => failure(new Error(message), 'MatMul').message;
  expect(of('Invalid TF_Status: 3\nMessage: no such shapes\nmore')).toBe(
    'TensorFlow: MatMul: no such shapes',
  );
  expect(of('Invalid TF_Status: 8\nMessage: OOM when allocating tensor')).toMatch(
    /^TensorFlow: MatMul: OOM when allocating tensor; lower the batch size/,
  );
});

describe.skipIf(!built)('the modules that are built', () => {
  const module = (name: string) => join(process.cwd(), `dist/engine/tensorflow/${name}.node`);
  /** Runs a program in a process of its own, and returns what it prints. */
  const run = (program: string) => {
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, ['-e', program], {
      encoding: 'utf8',
      env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' },
    });
    return { stdout, stderr, status, signal };
  };
  const LOAD = `const { quietly } = require('${module('quiet')}');
    const { start } = quietly(() => require('${module('binding')}'));`;

  it('load, start and compute in silence', () => {
    const { stdout, stderr, status } = run(`${LOAD}
      const binding = start(Uint8Array.of(0x10, 1)); // intra_op_parallelism_threads: 1
      const id = binding.createTensor([2], 1, new Float32Array([1, 2]));
      const [sum] = binding.executeOp('AddV2', [{ name: 'T', type: 4, value: 1 }], [id, id], 1);
      console.log(binding.tensorDataSync(sum.id).join(), binding.devices.length > 0);`);
    expect({ stdout, stderr, status }).toEqual({ stdout: '2,4 true\n', stderr: '', status: 0 });
  });

  it('refuse an invalid configuration with TensorFlow’s message, and do not end the process', () => {
    const { stdout, stderr } = run(`${LOAD}
      for (const wrong of [new Uint8Array([255]), 'text', undefined])
        try { start(wrong); } catch (error) { console.log(error.message); }`);
    expect(stderr).toBe('');
    expect(stdout).toBe('Unparseable ConfigProto\nstart takes a Uint8Array\nstart takes a Uint8Array\n');
  });

  it('divide an operation among the given number of threads', () => {
    const threads = (count: number) =>
      Number(
        run(`${LOAD}
        start(Uint8Array.of(0x10, ${count}));
        console.log(require('node:fs').readdirSync('/proc/self/task').length);`).stdout,
      );
    expect(threads(9) - threads(3)).toBe(6);
  });

  it('let TensorFlow speak if it ends the process', () => {
    const { quietly } = createRequire(import.meta.url)(module('quiet')) as { quietly<T>(run: () => T): T };
    expect(quietly(() => 3)).toBe(3);
    expect(() => quietly(() => JSON.parse('{'))).toThrow(SyntaxError);
    const { stderr, signal } = run(`const { quietly } = require('${module('quiet')}');
      const { writeSync } = require('node:fs');
      quietly(() => writeSync(2, 'hidden'));
      writeSync(2, 'shown ');
      quietly(() => { writeSync(2, 'needs AVX2'); process.abort(); });`);
    expect(stderr).toMatch(/^shown needs AVX2/);
    expect(signal).toBe('SIGABRT');
  });
});
