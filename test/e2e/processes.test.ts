import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { canRun } from '../support/engines.js';
import { alitok, type Outcome, startWith, succeed, TINY, temporaryFolder } from './alitok.js';

const at = await temporaryFolder();
const [train, tokens] = [at('train'), at('tokens.safetensors')];
/** One thread per process, so that sums are computed in the same order in every process. */
const ENGINE = ['--engine', 'libtorch', '--threads', '1'];
const launched = (processes: number) => [...ENGINE, 'launch', '-p', String(processes), '--'];

const PHASES =
  'tokenizer_training.stage1.phases=[' +
  '{steps: 3, lr: 1.0e-3, w_lpips: 0, w_perc: 0}, ' +
  '{steps: 5, lr: 1.0e-3, w_lpips: 0, w_perc: 0, adversarial: true}]';

const trainTokenizer = (run: string, ...more: string[]) => [
  ...['train-tokenizer', '-c', TINY, '-d', train, '--validation', train, '--stage', '1', '-r', at(run)],
  ...[PHASES, 'discriminator.hidden_channels=32', 'discriminator.stages=1'],
  ...['logging.checkpoint_every=1', 'logging.keep_checkpoints=8', ...more],
];
const trainGenerator = (run: string, ...more: string[]) => [
  ...['train-ar', '-c', TINY, '--tokens', tokens, '-r', at(run), 'generator_training.batch_size=8'],
  ...['generator_training.steps=8', ...more],
];

async function losses(run: string): Promise<Record<string, number>[]> {
  const lines = (await readFile(at(run, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  return lines
    .map((line) => JSON.parse(line))
    .filter((row) => 'loss' in row)
    .map(({ time, steps_per_second, data_wait, ...row }) => row);
}

/** The largest difference between two runs in the tensors of one file whose names match. */
async function difference(
  run: string,
  other: string,
  { step = 8, file = 'model', names = /(?:)/ }: { step?: number; file?: string; names?: RegExp } = {},
): Promise<number> {
  const open = (name: string) =>
    openSafetensors(at(name, 'checkpoints', `step-${String(step).padStart(7, '0')}`, `${file}.safetensors`));
  const [a, b] = await Promise.all([open(run), open(other)]);
  let largest = 0;
  for (const name of [...a.tensors.keys()].filter((key) => names.test(key))) {
    const [x, y] = [await a.readFloat32(name), await b.readFloat32(name)];
    x.forEach((value, i) => {
      largest = Math.max(largest, Math.abs(value - y[i]));
    });
  }
  await Promise.all([a.close(), b.close()]);
  return largest;
}

/** Compares every number of every row up to rounding, and code counts up to a few codes that depend on rounding. */
async function expectSameCourse(run: string, other: string): Promise<void> {
  const [rows, others] = [await losses(run), await losses(other)];
  expect(others.map((row) => Object.keys(row).sort())).toEqual(rows.map((row) => Object.keys(row).sort()));
  for (const [i, row] of rows.entries())
    for (const [name, value] of Object.entries(row)) {
      const tolerance = name.startsWith('codebook') ? 0.13 : 1e-4 * Math.max(1, Math.abs(value));
      expect(Math.abs(others[i][name] - value), `${name} of row ${i}`).toBeLessThan(tolerance);
    }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts processes like torchrun. */
async function startRanks(size: number, args: string[], environment: Record<string, string> = {}) {
  const port = String(await freePort());
  return Array.from({ length: size }, (_, rank) =>
    startWith(
      {
        RANK: String(rank),
        WORLD_SIZE: String(size),
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: port,
        ...environment,
      },
      ...ENGINE,
      ...args,
    ),
  );
}

const BRIDGE = fileURLToPath(new URL('../../dist/engine/libtorch/bridge.node', import.meta.url));

/** A process that connects to the store, but cannot open the group, and is killed. */
const KILLED_WHILE_JOINING = (port: string) => `
  const native = require(${JSON.stringify(BRIDGE)});
  const call = (name, ...args) => native.call(native.find('alitok::distributed_' + name, ''), ...args);
  call('join', '127.0.0.1', ${port}, 1, 2, false, 'alitok/0', [30, 30], 'gloo', 'cpu');
  setInterval(() => {
    try {
      call('joined');
    } catch (error) {
      console.log(error.message.split('\\n')[0]);
      process.kill(process.pid, 'SIGKILL');
    }
  }, 10);
`;

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const began = Date.now(); !(await condition()); ) {
    if (Date.now() - began > 60_000) throw new Error('it does not come');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The results of an evaluation, without command and time. */
function resultOf(file: Buffer): object {
  const { command, time, ...result } = JSON.parse(file.toString());
  return result;
}

const lastLine = ({ stderr }: Outcome) => stderr.trim().split('\n').at(-1);

describe.skipIf(!canRun('libtorch'))('several processes', () => {
  beforeAll(async () => {
    await drawPictures({ folder: at(), size: 16, perClass: 3, seed: 1, split: 'train' });
    await succeed(...ENGINE, ...trainTokenizer('one'));
    await succeed(
      ...ENGINE,
      ...['tokenize', '-c', TINY, '--tokenizer', at('one', 'stage1'), '-d', train, '-o', tokens],
    );
    await succeed(...ENGINE, ...trainGenerator('generator'));
  });

  it('train a tokenizer like one process, including clustering, usage and adversary', async () => {
    const { stderr } = await succeed(...launched(4), ...trainTokenizer('four'));
    expect(stderr).toContain('[rank 0] ');
    expect(stderr).not.toContain('[rank 1] ');
    const [one, four] = ['one/stage1', 'four/stage1'];
    await expectSameCourse(one, four);
    // The update moves entries so close together that rounding soon decides between them, so it is compared only once.
    expect(await difference(one, four, { step: 1, names: /^quantize/ })).toBeLessThan(1e-5);
    expect(await difference(one, four, { names: /^(?!quantize)/ })).toBeLessThan(2e-4);
    expect(await difference(one, four, { file: 'discriminator' })).toBeLessThan(2e-4);
  });

  it('train a generator like one process, with the same dropout masks', async () => {
    await succeed(...launched(2), ...trainGenerator('generator-2', 'generator_training.accumulation=2'));
    await expectSameCourse('generator', 'generator-2');
    expect(await difference('generator', 'generator-2')).toBeLessThan(2e-4);
  });

  it('tokenize and sample to the same bytes', async () => {
    const tokenizer = at('one', 'stage1');
    await succeed(
      ...launched(2),
      ...['tokenize', '-c', TINY, '--tokenizer', tokenizer, '-d', train, '-o', at('two.safetensors')],
    );
    expect((await readFile(at('two.safetensors'))).equals(await readFile(tokens))).toBe(true);
    const sample = [
      'sample',
      '-g',
      at('generator'),
      '--tokenizer',
      tokenizer,
      '--per-class',
      '1',
      '--batch-size',
      '5',
    ];
    await succeed(...ENGINE, ...sample, '-o', at('samples-1'));
    const { stdout } = await succeed(...launched(2), ...sample, '-o', at('samples-2'));
    expect(stdout.match(/12 images in/g)).toHaveLength(1);
    for (const file of ['samples.npz', 'grid.png'])
      expect((await readFile(at('samples-2', file))).equals(await readFile(at('samples-1', file)))).toBe(
        true,
      );
    expect(await readdir(at('samples-2', 'images'))).toHaveLength(12);
  });

  it('evaluate to the same numbers, and statistics to the same bytes', async () => {
    const images = at('many', 'train');
    await drawPictures({ folder: at('many'), size: 16, perClass: 12, seed: 2, split: 'train' });
    await succeed(...ENGINE, 'train-features', '-c', TINY, '-d', images, '-r', at('features'));
    const features = ['--features', at('features')];
    const tokenizer = ['--tokenizer', at('one', 'stage1')];
    /** Runs a command in one process and in several, and compares the files. Returns the output, which must be the same. */
    const compare = async (name: string, args: (file: string) => string[]) => {
      const [one, two] = [at(`one-${name}`), at(`two-${name}`)];
      const alone = await succeed(...ENGINE, ...args(one));
      const shared = await succeed(...launched(2), ...args(two));
      expect(shared.stdout).toBe(alone.stdout);
      const [a, b] = await Promise.all([one, two].map((file) => readFile(file)));
      return { a, b, alone };
    };
    const reconstruction = await compare('reconstruction.json', (file) => [
      ...['eval', 'reconstruction', ...tokenizer, '-d', images, ...features, '-o', file],
    ]);
    expect(resultOf(reconstruction.b)).toEqual(resultOf(reconstruction.a));
    expect(resultOf(reconstruction.a)).toMatchObject({ images: 144, rfid: expect.any(Number) });
    const stats = await compare('reference.npz', (file) => [
      ...['stats', '-d', images, '--size', '16', ...features, '--keep', '9', '-o', file],
    ]);
    expect(stats.b.equals(stats.a)).toBe(true);
    // Samples first; the reference has both images and statistics.
    const generation = await compare('generation.json', (file) => [
      ...['eval', 'generation', '-g', at('generator'), ...tokenizer, '--count', '70', '--batch-size', '20'],
      ...['--samples', `${file}.samples`, '--reference', at('one-reference.npz'), ...features, '-o', file],
    ]);
    expect(resultOf(generation.b)).toEqual(resultOf(generation.a));
    expect(resultOf(generation.a)).toMatchObject({ samples: 70, references: 9, fid: expect.any(Number) });
  });

  it.each([
    { dead: 1, processes: 1 },
    { dead: 0, processes: 3 }, // rank 0 hosts the store through which the processes communicate
  ])('end when rank $dead is killed, with its name, and $processes resume', async ({ dead, processes }) => {
    const run = `killed-${dead}`;
    const never = ['steps=100000', 'batch_size=12'].map((text) => `generator_training.${text}`);
    const train = (...more: string[]) => trainGenerator(run, ...never, ...more);
    const ranks = await startRanks(2, train('logging.images_every=100000'));
    await until(() => existsSync(at(run, 'checkpoints', 'step-0000004')));
    ranks[dead].child.kill('SIGKILL');
    const killedAt = Date.now();
    const outcome = await ranks[1 - dead].outcome;
    expect(Date.now() - killedAt).toBeLessThan(60_000);
    expect(lastLine(outcome)).toMatch(new RegExp(`^error: rank ${dead}\\b.*--resume`));
    expect(outcome.code).toBe(8);
    const saved = (await readdir(at(run, 'checkpoints'))).filter((name) => /^step-\d+$/.test(name)).sort();
    const from = Number(saved.at(-1)!.slice('step-'.length));
    const to = `generator_training.steps=${from + 4}`;
    const { stderr } = await succeed(...launched(processes), ...train('--resume', '--allow-changes', to));
    expect(stderr).toContain(`resumed from step ${from}`);
    const steps = (await losses(run)).map(({ step }) => step);
    expect(steps).toEqual(Array.from({ length: from / 2 + 2 }, (_, i) => 2 * i + 2));
  });

  it('report when one of them cannot join, or is killed while joining', async () => {
    const place = { WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1', MASTER_PORT: String(await freePort()) };
    const broken = { GLOO_SOCKET_IFNAME: 'nowhere' };
    const train = [...ENGINE, ...trainGenerator('never')];
    const ranks = [
      startWith({ ...place, RANK: '0' }, ...train),
      startWith({ ...place, ...broken, RANK: '1' }, ...train),
    ];
    for (const { outcome } of ranks) {
      const ended = await outcome;
      expect(lastLine(ended)).toMatch(/^error: rank 1 cannot join the 2 processes .*: opening the group: /);
      expect(ended.code).toBe(8);
    }
    const port = String(await freePort());
    const alone = startWith({ ...place, MASTER_PORT: port, RANK: '0' }, ...train);
    const killed = spawn(process.execPath, ['-e', KILLED_WHILE_JOINING(port)], {
      env: { ...process.env, ...broken },
    });
    let said = '';
    killed.stdout.on('data', (text) => {
      said += text;
    });
    const ended = await alone.outcome;
    expect(said).toContain('opening the group: ');
    expect(lastLine(ended)).toMatch(/^error: rank 1 has given no sign of life/);
    expect(ended.code).toBe(8);
    expect(existsSync(at('never'))).toBe(false);
  });

  it('resume a run of another number of processes, also with a sharded optimizer', async () => {
    const constant = ['warmup_steps=0', 'lr=1.0e-3', 'lr_end=1.0e-3'].map(
      (text) => `generator_training.${text}`,
    );
    const sharded = 'generator_training.shard_optimizer=true';
    await succeed(
      ...launched(2),
      ...trainGenerator('resumed', ...constant, sharded, 'generator_training.steps=4'),
    );
    await succeed(...ENGINE, ...trainGenerator('resumed', ...constant, '--resume', '--allow-changes'));
    await succeed(...ENGINE, ...trainGenerator('undisturbed', ...constant));
    await expectSameCourse('undisturbed', 'resumed');
    expect(await difference('undisturbed', 'resumed')).toBeLessThan(2e-4);
    expect(await difference('undisturbed', 'resumed', { file: 'optimizer' })).toBeLessThan(2e-4);
  });

  it('each report what is wrong, and write nothing', async () => {
    const refused = await alitok(...launched(2), ...trainGenerator('generator'));
    expect(refused.stderr).toMatch(/\[rank 0\] error: .*generator already contains a run/);
    expect(refused.stderr).toMatch(/\[rank 1\] error: rank 0 failed: .*generator already contains a run/);
    expect(refused.code).toBe(6);
    const uneven = await alitok(...launched(2), ...trainGenerator('no', 'generator_training.batch_size=7'));
    expect(uneven.stderr).toContain('generator_training.batch_size is 7, which 2 processes');
    expect(uneven.code).toBe(2);
    const alone = await alitok(...launched(2), 'doctor');
    expect(lastLine(alone)).toMatch(/only train-tokenizer, .* can be divided among several processes/);
    // A folder may have the name of a command.
    const report = await alitok(...launched(2), 'report', 'sample');
    expect(lastLine(report)).toMatch(/launch report: only train-tokenizer, .* write one of them after --/);
    const environment = { RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1', ALITOK_JOIN_TIMEOUT: '1' };
    const wasm = await startWith(environment, ...trainGenerator('no')).outcome;
    expect(lastLine(wasm)).toMatch(/2 processes need --engine libtorch/);
    const port = { MASTER_PORT: String(await freePort()) };
    const early = await startWith({ ...environment, ...port }, ...ENGINE, ...trainGenerator('no')).outcome;
    expect(lastLine(early)).toMatch(/rank 1 has not come/);
    expect(existsSync(at('no'))).toBe(false);
  });
});
