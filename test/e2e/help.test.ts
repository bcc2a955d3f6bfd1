import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { alitok, startWith, succeed, TINY, temporaryFolder, tinyRun } from './alitok.js';

const at = await temporaryFolder();
const train = at('train');

beforeAll(async () => {
  await tinyRun(at());
});

describe('--dry-run', () => {
  const value = (text: string, name: string) =>
    [...text.matchAll(new RegExp(`^${name} +(.*)$`, 'gm'))].map((found) => found[1]);

  it('estimates the resources for a tokenizer, and writes nothing', async () => {
    const run = at('run');
    const phases = '[{steps: 100, lr: 1.0e-3}, {steps: 50, lr: 1.0e-3, adversarial: true}]';
    const { stdout } = await succeed(
      ...['train-tokenizer', '-c', TINY, '-d', train, '--validation', train, '-r', run, '--dry-run'],
      ...[
        `tokenizer_training.stage1.phases=${phases}`,
        'logging.keep_checkpoints=3',
        'discriminator.hidden_channels=32',
      ],
    );
    expect(existsSync(run)).toBe(false);
    expect(value(stdout, 'run')).toEqual(['stage 1', 'stage 2']);
    expect(value(stdout, 'steps')).toEqual(['150', '6']);
    const [first, second] = value(stdout, 'time per step').map((text) =>
      text.match(/[\d.]+ s/g)!.map(Number.parseFloat),
    );
    expect([first.length, second.length]).toEqual([2, 1]); // the phases of stage 1 differ
    for (const seconds of [...first, ...second]) expect(seconds).toBeGreaterThan(0);
    expect(value(stdout, 'time in all')[0]).toMatch(/^about \d+ (s|min), including 50 previews of [\d.]+ s$/);
    expect(value(stdout, 'disk')[0]).toMatch(/ a checkpoint, .* with 3 kept and one being written; .* free$/);
    expect(stdout).toMatch(/^all runs together: about \d/m);
    expect(stdout).toContain('Nothing was written');
  });

  it('estimates the resources for a generator, and the size of a checkpoint is right', async () => {
    const [tokens, run] = [at('tokens.safetensors'), at('generator')];
    const command = ['train-ar', '-c', TINY, '--tokens', tokens, '-r', run];
    const { stdout } = await succeed(...command, '--dry-run');
    expect(existsSync(run)).toBe(false);
    const [, parameters] = /^parameters +([\d,]+)$/m.exec(stdout)!;
    // Weights and the optimizer's two moments.
    const mebibytes = (12 * Number(parameters.replaceAll(',', ''))) / 2 ** 20;
    expect(value(stdout, 'disk')[0].startsWith(`${mebibytes.toFixed(1)} MiB a checkpoint`)).toBe(true);
  });

  it('runs no step that cannot fit in memory', async () => {
    const { stdout, stderr } = await succeed(
      ...['train-tokenizer', '-c', TINY, '-d', train, '--validation', train, '-r', at('huge'), '--dry-run'],
      ...['--stage', '2', 'tokenizer.decoder.width=65536', 'tokenizer.decoder.layers=64'],
    );
    expect(stderr).toMatch(/weights, gradients and optimizer alone do not fit into memory/);
    expect(stdout).toMatch(/time per step +not measured/);
    expect(stderr).toMatch(/the checkpoints need .* GiB, but .* GiB are free; free some space/);
  });
});

describe('doctor', () => {
  it('reports what is available, what is not and why, and what to do', async () => {
    const { stdout, code } = await alitok('doctor');
    expect(code).toBe(0);
    for (const line of [
      /^machine +.*, \d+ of \d+ processors$/m,
      /^memory +[\d.]+ GiB, [\d.]+ [MG]iB free$/m,
      /^Node\.js +v\d+/m,
      /^alitok +\d+\.\d+\.\d+.*tfjs 4/m,
      /^wasm +tfjs-backend-wasm 4/m,
      /^devices +cpu/m,
      /^chosen +wasm: tfjs-backend-wasm/m,
      /^bandwidth +[\d.]+ GB\/s/m,
      /^matrix rate +\d+ GFLOP\/s/m,
      /^self-test +passed: 112 values of PyTorch, largest error \d\.\de-\d+ \(/m,
      /^(Advice\n {2}- |No problems found\.)/m,
    ])
      expect(stdout).toMatch(line);
  });

  it('prints all of it as JSON', async () => {
    const { stdout } = await succeed('doctor', '--json');
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({
      chosen: { name: 'wasm' },
      selfTest: { passed: true },
      limits: { bandwidth: expect.any(Number), matrixRate: expect.any(Number) },
    });
    expect(found.engines.map(({ name }: { name: string }) => name)).toEqual([
      'libtorch',
      'tensorflow',
      'wasm',
    ]);
  });
});

it.each([
  [['trian-ar'], /unknown command 'trian-ar'\n\(Did you mean train-ar\?\)/],
  [['eval', 'generatoin'], /Did you mean generation\?/],
  [['report', '--outt', 'x', 'y'], /unknown option '--outt'\n\(Did you mean --out\?\)/],
  [['inspect', TINY, 'generater.layers=3'], /generater: unknown key; did you mean generator\?/],
  [['inspect', TINY, 'generator.layer=3'], /generator\.layer: unknown key; did you mean layers\?/],
])('%j: did you mean?', async (args, message) => {
  const { stderr, code } = await alitok(...args);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});

it.each([
  ['20.18.3', false],
  ['20.19.0', true],
  ['21.7.0', false],
  ['22.11.0', false],
  ['22.12.0', true],
  ['24.0.0', true],
])('on Node.js %s it says what it needs, or runs: %s', async (version, runs) => {
  const module = fileURLToPath(new URL('../fixtures/another-node.mjs', import.meta.url));
  const environment = { NODE_OPTIONS: `--import=${module}`, NODE_VERSION: version };
  const { code, stdout, stderr } = await startWith(environment, '--version').outcome;
  if (runs) expect([code, stdout, stderr]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/), '']);
  else
    expect([code, stderr]).toEqual([
      1,
      `error: alitok needs Node.js 20.19, 22.12 or newer, and this is ${version}; install a newer one\n`,
    ]);
});
