import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadNative } from '../../src/engine/libtorch/bridge.js';
import { canRun } from '../support/engines.js';
import { type Outcome, succeed, TINY, temporaryFolder } from './alitok.js';

const at = await temporaryFolder();
const repository = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const BRIDGE = 'dist/engine/libtorch/bridge.node';

/** Runs a program to its end, with a timeout. */
function run(file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...env }, timeout: 60_000 };
    const child = execFile(file, args, options, (_, stdout, stderr) =>
      resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

/** Makes a copy of the program with a bridge modified by `change`. Returns a function that runs it. */
async function programWith(name: string, change: (bridge: Buffer) => Buffer) {
  await mkdir(at(name), { recursive: true });
  for (const part of ['bin', 'dist', 'src/engine/tensorflow/native', 'package.json'])
    await cp(repository(part), at(name, part), { recursive: true });
  await symlink(repository('node_modules'), at(name, 'node_modules'));
  await writeFile(at(name, BRIDGE), change(await readFile(repository(BRIDGE))));
  return (...args: string[]) => run(process.execPath, [at(name, 'bin/alitok.js'), ...args]);
}

/** Replaces all occurrences of a text by another one of the same length. */
const replaced = (from: string, to: string) => (bytes: Buffer) => {
  expect(bytes.includes(from)).toBe(true);
  return Buffer.from(bytes.toString('latin1').replaceAll(from, to), 'latin1');
};

describe.skipIf(!canRun('libtorch'))('libtorch', () => {
  const { version } = existsSync(repository(BRIDGE)) ? loadNative() : { version: '' };
  it.each([
    [
      'whose libraries are elsewhere',
      replaced('libtorch_cpu.so', 'libtorch_cpX.so'),
      /the libtorch that the bridge was built against does not load; run "npm run build:libtorch" again: libtorch_cpX\.so/,
    ],
    [
      'of another ABI',
      replaced('_ZN2at15set_num_threadsEi', '_ZN2at15set_num_threadzEi'),
      /the bridge was built against another libtorch than the one that is here; run "npm run build:libtorch" again: .*undefined symbol/,
    ],
    [
      'of another version',
      replaced(`${version}\0`, `9${version.slice(1)}\0`),
      /the bridge was built for PyTorch 9\..*, but finds PyTorch .*; run "npm run build:libtorch" again/,
    ],
  ])('a bridge %s: one line with the remedy, and auto goes on', async (name, change, line) => {
    const program = await programWith(name.replaceAll(' ', '-'), change);
    const bench = ['bench', 'encode', '-c', TINY, '--repeats', '1', '--json'];
    const refused = await program('--engine', 'libtorch', ...bench);
    expect(refused.code).toBe(5);
    expect(refused.stdout).toBe('');
    expect(refused.stderr.trimEnd()).toMatch(line);
    expect(refused.stderr.trimEnd()).not.toContain('\n');
    const other = await program(...bench);
    expect(other.code, other.stderr).toBe(0);
    expect(JSON.parse(other.stdout).engine).not.toBe('libtorch');
  });

  it.runIf(process.platform === 'linux')(
    'no memory: the operation, its shapes, its bytes, and what to lower',
    async () => {
      const bench = '--engine libtorch --threads 1 bench encode:60000 --repeats 1 -c';
      const limited = `ulimit -v 3000000; exec "$0" "$1" ${bench} "$2"`;
      const paths = [process.execPath, repository('bin/alitok.js'), TINY];
      const { code, stderr } = await run('/bin/sh', ['-c', limited, ...paths], { OPENBLAS_NUM_THREADS: '1' });
      expect(stderr).toMatch(
        /^error: libtorch: (aten|alitok)::[\w.]+\(.*\[60000, .*\]\): can't allocate memory: [\d.]+ [MG]iB; lower the batch size \(batch_size, --batch-size\).*\n$/,
      );
      expect(code).toBe(5);
    },
  );

  describe('weights in fewer bits', () => {
    const sample = (engine: string, out: string) =>
      run(process.execPath, [
        repository('bin/alitok.js'),
        ...['--engine', engine, 'sample', '-g', at('alitok_b.bin'), '--tokenizer', at('AliTok.pth')],
        ...['--classes', '0', '--per-class', '1', '--weights', 'int8', '-o', at(out)],
      ]);
    beforeAll(async () => {
      const heads = ['tokenizer.encoder.heads=3', 'tokenizer.decoder.heads=4'];
      await succeed(
        'convert',
        repository('test/fixtures/goldens/tokenizer_stage2.pth'),
        at('AliTok.pth'),
        ...heads,
      );
      await copyFile(repository('test/fixtures/goldens/generator.bin'), at('alitok_b.bin'));
    });

    it('reports how far logits change, and what that means', async () => {
      const { code, stderr } = await sample('libtorch', 'samples');
      expect(code, stderr).toBe(0);
      const [, share] = /weights in int8 move the logits by ([\d.]+) % of their spread/.exec(stderr)!;
      expect(Number(share)).toBeGreaterThan(0);
      expect(Number(share)).toBeLessThan(10);
      expect(stderr).toMatch(/different draws of similar quality; use float32 for numbers to publish/);
    });

    it('are refused by an engine without kernels for them', async () => {
      const { code, stderr } = await sample('wasm', 'none');
      expect([code, stderr]).toEqual([
        5,
        'error: the engine wasm does not support weights in int8; use --engine libtorch\n',
      ]);
    });
  });
});
