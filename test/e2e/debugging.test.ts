import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { alitok, runIn, startIn, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const [tokenizer, generator, tokens] = [at('tokenizer'), at('generator'), at('tokens.safetensors')];

beforeAll(async () => {
  await tinyRun(at());
  await succeed('train-ar', '-c', TINY, '--tokens', tokens, '-r', generator);
});

describe('--debug', () => {
  it('reports the events of its scopes, on the terminal and in the run folder', async () => {
    const run = at('debugged');
    const { stderr } = await succeed(
      ...['train-ar', '-c', TINY, '--tokens', tokens, '-r', run, '--debug', 'config,engine,data,memory,run'],
      'generator.layers=2',
    );
    for (const line of [
      /DEBUG: config: generator\.layers = 2 \(override\)/,
      /DEBUG: config: generator\.width = 16 \(.*tiny\.yaml:\d+\)/,
      /DEBUG: engine: wasm started: .*, 1 threads, device cpu/,
      /DEBUG: data: step 6: [\d.]+ steps\/s, [\d.]+ % of the time spent waiting for data/,
      /DEBUG: memory: step 6: peak [\d.]+ MiB; now [\d.]+ MiB of the process, \d+ tensors of [\d.]+ MiB/,
      /DEBUG: run: .*debugged: new run, 6 steps/,
      /DEBUG: run: checkpoint of step 6 written to .*debugged in [\d.]+ s/,
    ])
      expect(stderr).toMatch(line);
    expect(stderr).not.toContain('DEBUG: processes');
    const log = await readFile(join(run, 'log.jsonl'), 'utf8');
    expect(log).toMatch(/"level":20,.*"scope":"memory"/);
  });

  it('without scopes reports everything, and without the option nothing is reported', async () => {
    expect((await succeed('--debug', 'inspect', tokenizer)).stderr).toBe('');
    const tokenize = [
      'tokenize',
      '-c',
      TINY,
      '-t',
      tokenizer,
      '-d',
      at('train'),
      '-o',
      at('again.safetensors'),
    ];
    for (const debug of [['--debug'], ['--log-level', 'debug']]) {
      const { stderr } = await succeed(...tokenize, ...debug);
      expect(stderr).toMatch(/DEBUG: config: /);
      expect(stderr).toMatch(/DEBUG: engine: /);
    }
    expect((await succeed(...tokenize)).stderr).not.toContain('DEBUG');
  });

  it('refuses an unknown scope', async () => {
    const { code, stderr } = await alitok('doctor', '--debug', 'engin');
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/Did you mean engine\? Scopes are config, data,/),
    ]);
  });
});

describe('--profile', () => {
  const profiles = async (folder: string) =>
    (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile'));
  const readProfile = async (folder: string) => {
    const [name, ...more] = await profiles(folder);
    expect(more).toEqual([]);
    return { name, profile: JSON.parse(await readFile(join(folder, name), 'utf8')) };
  };

  it('writes a time profile, each time to a new file', async () => {
    const folder = at('profiled');
    await mkdir(folder);
    const { code, stderr } = await runIn(
      folder,
      'bench',
      'encode',
      '-c',
      TINY,
      '--repeats',
      '1',
      '--profile',
    );
    expect(code).toBe(0);
    const { name, profile } = await readProfile(folder);
    expect(name).toMatch(/^alitok-bench-\d{4}-\d\d-\d\dT[\d-]+\.cpuprofile$/);
    expect(stderr).toContain(`CPU profile in ${join(folder, name)}`);
    const functions = profile.nodes.map(
      (node: { callFrame: { functionName: string } }) => node.callFrame.functionName,
    );
    expect(functions).toContain('measure');
    await Promise.all([1, 2].map(() => runIn(folder, '--profile', 'inspect', TINY)));
    expect(await profiles(folder)).toHaveLength(3);
  });

  it('also writes a profile when the command fails', async () => {
    const folder = at('failed');
    await mkdir(folder);
    const { code, stderr } = await runIn(
      folder,
      '--profile',
      'eval',
      'reconstruction',
      '-t',
      'none',
      '-d',
      'none',
    );
    expect(code).toBe(4);
    const { name } = await readProfile(folder);
    expect(name).toMatch(/^alitok-eval-reconstruction-/);
    expect(stderr).toMatch(/CPU profile in .*\n.*error: none does not exist/);
  });

  const endless: Record<string, (at: string) => string[]> = {
    'that saves first': (folder) => [
      ...['train-ar', '-c', TINY, '--tokens', tokens, '-r', join(folder, 'run')],
      'generator_training.steps=1000000',
    ],
    'that ends at once': () => ['bench', 'encode', '-c', TINY, '--repeats', '1000000'],
  };

  it.each(
    ['SIGINT', 'SIGTERM'].flatMap((signal) =>
      Object.keys(endless).map((work) => [signal as NodeJS.Signals, work] as const),
    ),
  )('is written on %s in work %s', async (signal, work) => {
    const folder = at(`${signal} in work ${work}`);
    await mkdir(folder);
    const { child, outcome } = startIn(
      folder,
      '--profile',
      '--debug',
      'engine,data',
      ...endless[work](folder),
    );
    const begun = work === 'that saves first' ? /data: step/ : /wasm started/;
    await new Promise<void>((resolve) => {
      child.stderr!.on('data', (text: string) => begun.test(text) && resolve());
    });
    child.kill(signal);
    const { code, stderr } = await outcome;
    expect([code, child.signalCode]).toEqual(work === 'that saves first' ? [130, null] : [null, signal]);
    expect(stderr).toMatch(/CPU profile in .*cpuprofile/);
    expect((await readProfile(folder)).profile.samples.length).toBeGreaterThan(1);
  });
});

describe('inspect --resolved', () => {
  it('prints a config with all its values, which loads as the same config', async () => {
    const overrides = ['generator.layers=2', 'tokenizer_training.stage1.phases.0.steps=7'];
    const { stdout } = await succeed('inspect', '--resolved', TINY, ...overrides);
    expect(stdout).toMatch(/^ {2}layers: 2 # override$/m);
    expect(stdout).toMatch(/^ {2}image_size: 16 # .*tiny\.yaml:\d+$/m);
    expect(stdout).toMatch(/^ {2}beta1: 0\.9$/m); // a default
    await writeFile(at('resolved.yaml'), stdout);
    expect(loadConfig(at('resolved.yaml'))).toEqual(loadConfig(TINY, overrides));
  });

  it("prints a run's config", async () => {
    const { stdout } = await succeed('inspect', '--resolved', generator, 'seed=3');
    await writeFile(at('run.yaml'), stdout);
    expect(loadConfig(at('run.yaml'))).toEqual({ ...loadConfig(join(generator, 'config.yaml')), seed: 3 });
    expect(stdout.match(/ # /g)).toHaveLength(1);
    expect((await succeed('inspect', '--resolved', tokenizer)).stdout).toContain('stage2/config.yaml');
    const { code, stderr } = await alitok('inspect', '--resolved', tokens);
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/tokens\.safetensors has no config; name a \.yaml file/),
    ]);
  });
});

it('a missing --features says where to get Inception', async () => {
  const { code, stderr } = await alitok(
    'eval',
    'generation',
    '--samples',
    at('train'),
    '--reference',
    at('train'),
  );
  expect(code).toBe(2);
  expect(stderr).toMatch(
    /required option '--features <path>' not specified; name the Inception of published results/,
  );
});

it('sampling settings are refused if nothing is sampled', async () => {
  const files = ['--samples', at('train'), '--reference', at('train'), '--features', at('train')];
  for (const [given, named] of [
    [['sample.seed=2'], 'sample.seed=2'],
    [['--top-k', '2'], '--top-k'],
    [['--count', '2'], '--count'],
  ] as const) {
    const { code, stderr } = await alitok('eval', 'generation', ...files, ...given);
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining(`error: ${named} is for sampling; give --generator`),
    ]);
  }
});

describe('sampling settings', () => {
  const settings = async (out: string, ...more: string[]) => {
    const models = ['-g', generator, '-t', tokenizer, '--per-class', '1', '--npz-only'];
    await succeed('sample', ...models, '-o', at(out), ...more);
    return JSON.parse(await readFile(at(out, 'samples.json'), 'utf8')).settings;
  };

  it("precedence: options, then overrides, then the config file, then the generator's saved settings", async () => {
    const saved = loadConfig(join(generator, 'config.yaml')).sample;
    expect(await settings('saved')).toEqual(saved);
    await writeFile(at('sample.yaml'), 'seed: 5\nsample: {temperature: 0.5, top_k: 3, top_p: 0.8}\n');
    const config = ['-c', at('sample.yaml')];
    expect(await settings('config', ...config)).toEqual({ ...saved, temperature: 0.5, top_k: 3, top_p: 0.8 });
    expect(await settings('all', ...config, 'sample.top_k=2', 'sample.top_p=0.7', '--top-p', '0.6')).toEqual({
      ...saved,
      temperature: 0.5,
      top_k: 2,
      top_p: 0.6,
    });
  });

  it('tokenize --crops takes precedence over the config', async () => {
    const crops = async (...more: string[]) =>
      (await succeed(
        'tokenize',
        '-t',
        tokenizer,
        '-d',
        at('train'),
        '-o',
        at('crops.safetensors'),
        ...more,
      )) && /^codes +(\d+) crops/m.exec((await succeed('inspect', at('crops.safetensors'))).stdout)![1];
    expect(await crops()).toBe('10');
    expect(await crops('--crops', 'flip', 'tokenize.crops=ten-crop')).toBe('2');
    expect(existsSync(at('crops.safetensors.partial'))).toBe(false);
  });
});
