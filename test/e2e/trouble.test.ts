import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { alitok, type Outcome, start, startWith, succeed, TINY, temporaryFolder } from './alitok.js';
import { contents } from './run-contents.js';

const at = await temporaryFolder();
const root = process.getuid?.() === 0;
const mounted: string[] = [];
afterAll(() => {
  for (const disk of mounted) execFileSync('umount', [disk]);
});

const options = (run: string, ...more: string[]) => [
  ...[
    'train-tokenizer',
    '--threads',
    '1',
    '-c',
    TINY,
    '-d',
    at('train'),
    '-r',
    at(run),
    '--stage',
    '1',
    ...more,
  ],
];
const train = (run: string, ...more: string[]) => alitok(...options(run, ...more));
const stage1 = (run: string, ...names: string[]) => at(run, 'stage1', ...names);
const checkpoint = (run: string, step: number) => stage1(run, 'checkpoints', `step-000000${step}`);

function expectError({ code, stderr }: Outcome, expected: number, message: RegExp): void {
  const errors = stderr.split('\n').filter((line) => line.startsWith('error: '));
  expect(errors.join('\n'), stderr).toMatch(message);
  expect(errors).toHaveLength(1);
  expect(code).toBe(expected);
}

/** Changes one byte in the middle of a file. */
async function corrupt(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[bytes.length >> 1] ^= 1;
  await writeFile(path, bytes);
}

/** A small disk. */
function mountDisk(disk: string, size: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', disk], { stdio: 'ignore' });
  mounted.push(disk);
}

/** Runs a test on its own disk, where possible. */
function onDisk(name: string, size: string, test: (disk: string) => Promise<void>): void {
  it.skipIf(!root)(name, async ({ skip }) => {
    const disk = `disk-${mounted.length}`;
    await mkdir(at(disk));
    try {
      mountDisk(at(disk), size);
    } catch {
      skip('no permission to mount a disk');
    }
    await test(disk);
  });
}

let expected: Record<string, unknown>;
beforeAll(async () => {
  await drawPictures({ folder: at(), size: 16, perClass: 3, seed: 1, split: 'train' });
  await succeed(...options('whole'));
  expected = await contents(stage1('whole'));
});

describe('a damaged checkpoint', () => {
  it.each(['model.safetensors', 'optimizer.safetensors', 'state.json', 'SHA256SUMS'])(
    'is replaced by the previous one when a byte of %s is wrong',
    async (name) => {
      const run = `damaged-${name}`;
      await cp(at('whole'), at(run), { recursive: true });
      await corrupt(`${checkpoint(run, 6)}/${name}`);
      const { stderr } = await succeed(...options(run, '--resume'));
      expect(stderr).toMatch(/WARN: .*step-0000006.*; the run continues from the checkpoint of step 4/);
      const found = await contents(stage1(run));
      const before = await readdir(`${checkpoint(run, 6)}.damaged`);
      for (const file of before) delete found[`checkpoints/step-0000006.damaged/${file}`];
      expect(found).toEqual(expected);
    },
  );

  it('is moved to a name that is free', async () => {
    await cp(at('whole'), at('aside'), { recursive: true });
    await corrupt(`${checkpoint('aside', 6)}/state.json`);
    await mkdir(`${checkpoint('aside', 6)}.damaged`);
    await writeFile(`${checkpoint('aside', 6)}.damaged/thesis.txt`, 'mine');
    const { stderr } = await succeed(...options('aside', '--resume'));
    expect(stderr).toMatch(/step-0000006 was renamed to .*step-0000006\.damaged-2/);
    expect(await readdir(`${checkpoint('aside', 6)}.damaged`)).toEqual(['thesis.txt']);
    expect(await readdir(`${checkpoint('aside', 6)}.damaged-2`)).toContain('model.safetensors');
  });

  it('ends the run if no other is left, and nothing is written', async () => {
    await cp(at('whole'), at('lost'), { recursive: true });
    for (const step of [4, 6]) await corrupt(`${checkpoint('lost', step)}/model.safetensors`);
    expectError(
      await train('lost', '--resume'),
      4,
      /lost.stage1 has no undamaged checkpoint: .*step-0000006/,
    );
    const reconstruct = ['reconstruct', '--tokenizer', at('lost'), '-d', at('train'), '-o', at('no')];
    expectError(await alitok(...reconstruct), 4, /model\.safetensors is damaged: .*name another checkpoint/);
    expect(existsSync(at('no'))).toBe(false);
  });
});

describe('resuming', () => {
  it('auto starts a run if there is none, and otherwise resumes it', async () => {
    await succeed(...options('auto', '--resume', 'auto'));
    const { stderr } = await succeed(...options('auto', '--resume', 'auto'));
    expect(stderr).toMatch(/already finished, at step 6/);
    expect(await contents(stage1('auto'))).toEqual(expected);
  });

  it('shows differences, refuses those that affect the result, and accepts them with an option', async () => {
    const longer = 'tokenizer_training.stage1.phases=[{steps: 6, lr: 1.0e-3}, {steps: 2, lr: 1.0e-4}]';
    expectError(
      await train('auto', '--resume', longer),
      2,
      /was started with other values, tokenizer_training\.stage1\.phases: \[.*\] → \[.*\]; .*--allow-changes/,
    );
    await drawPictures({ folder: at('more'), size: 16, perClass: 4, seed: 1, split: 'train' });
    expectError(
      await train('auto', '--resume', '-d', at('more', 'train')),
      3,
      /was started on other data, training images: "36 images.*" → "48 images/,
    );
    const { stderr } = await succeed(
      ...options('auto', '--resume', '--allow-changes', longer, 'logging.keep_checkpoints=1'),
    );
    expect(stderr).toMatch(/WARN: .*affect its result: tokenizer_training\.stage1\.phases: /);
    expect(stderr).toMatch(/INFO: .*do not affect its result: logging\.keep_checkpoints: 2 → 1/);
    expect(await readdir(stage1('auto', 'checkpoints'))).toEqual(['step-0000008']);
  });

  it('is refused while another process is using the folder', async () => {
    const many = 'tokenizer_training.stage1.phases=[{steps: 4000, lr: 1.0e-3}]';
    const { child, outcome } = start(...options('busy', many));
    while (!existsSync(stage1('busy', 'metrics.jsonl')) && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 20));
    const second = await train('busy', many, '--resume', 'auto');
    child.kill('SIGKILL');
    await outcome;
    expectError(
      second,
      6,
      new RegExp(`busy.stage1 is in use by process ${child.pid} on .*; wait until it ends`),
    );
  });
});

describe('the machine', () => {
  it('a clock that jumps changes only the times', async () => {
    const clock = fileURLToPath(new URL('../fixtures/jumping-clock.mjs', import.meta.url));
    const jumping = { NODE_OPTIONS: `--import=${clock}` };
    const run = async (...more: string[]) => {
      const { outcome, child } = startWith(jumping, ...options('clock', ...more));
      return { child, outcome };
    };
    const { child, outcome } = await run();
    while (!existsSync(checkpoint('clock', 2)) && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGKILL');
    await outcome;
    const { code, stderr } = await (await run('--resume', 'auto')).outcome;
    expect(code, stderr).toBe(0);
    expect(await contents(stage1('clock'))).toEqual(expected);
  });

  onDisk(
    'a disk that is full keeps the checkpoint before, from which the run goes on',
    '400k',
    async (disk) => {
      const keep = 'logging.keep_checkpoints=20';
      expectError(
        await train(disk, keep),
        6,
        /the disk is full;.*the checkpoint of step \d is kept, and --resume continues from it/,
      );
      for (const name of await readdir(stage1(disk, 'checkpoints'))) expect(name).toMatch(/^step-\d{7}$/);
      execFileSync('mount', ['-o', 'remount,size=20m', at(disk)]);
      await succeed(...options(disk, keep, '--resume'));
      const found = await contents(stage1(disk));
      for (const name of Object.keys(expected))
        if (name !== 'config.yaml') expect(found[name]).toEqual(expected[name]);
    },
  );

  onDisk('a disk that is read-only is named, and nothing changes', '20m', async (disk) => {
    const early = 'tokenizer_training.stage1.phases=[{steps: 4, lr: 1.0e-3}]';
    await succeed(...options(disk, early));
    const before = await contents(at(disk));
    execFileSync('mount', ['-o', 'remount,ro', at(disk)]);
    expectError(await train(disk, '--resume'), 6, /cannot write .*stage1: the disk is read-only/);
    expectError(await train(`${disk}/new`), 6, /cannot write .*new: the disk is read-only/);
    expect(await contents(at(disk))).toEqual(before);
  });
});

describe('guards', () => {
  it('a non-finite step is not applied, reports what it found, and keeps the checkpoint before', async () => {
    // Large enough to diverge in the third step, too small to overflow earlier.
    const diverging = 'tokenizer_training.stage1.phases=[{steps: 9, lr: 1.0e+15}]';
    const every = 'logging.checkpoint_every=1';
    const outcome = await train('diverged', diverging, every);
    expectError(
      outcome,
      7,
      /step \d was not made: loss or gradient is not finite \(loss .*, gradient norm .*; images /,
    );
    const [record] = (await readdir(stage1('diverged'))).filter((name) => name.startsWith('nonfinite-'));
    const seen = JSON.parse(await readFile(stage1('diverged', record), 'utf8'));
    expect(seen.batch.images).toHaveLength(4);
    expect([seen.grad_norm, ...Object.values(seen.metrics)].some((x) => typeof x === 'string')).toBe(true);
    const last = (await readdir(stage1('diverged', 'checkpoints'))).at(-1);
    expect(last).toBe(`step-${String(seen.step - 1).padStart(7, '0')}`);
    const skip = ['guards.on_nonfinite=skip', 'guards.max_skipped=2'];
    const skipping = await train('diverged', diverging, every, '--resume', ...skip);
    expectError(skipping, 7, /2 batches before it were skipped too .*, so the batch is not the cause/);
    expect(skipping.stderr.match(/WARN: step \d was not made: .* it is skipped/g)).toHaveLength(2);
  });

  it('trains without the auxiliary term, and does not change its head', async () => {
    const outcome = await train('no-aux', 'tokenizer_training.aux_weight=0', 'logging.checkpoint_every=1');
    expect(outcome).toMatchObject({ code: 0 });
    const head = async (step: number) => {
      const file = await openTensorFile(join(checkpoint('no-aux', step), 'model.safetensors'));
      const values = await file.readFloat32('decoder.ffn_aux.0.weight');
      await file.close();
      return values;
    };
    expect(await head(6)).toEqual(await head(5));
  });

  it('stops when something else is in the place of its checkpoints', async () => {
    await cp(at('whole'), at('occupied'), { recursive: true });
    await rm(stage1('occupied', 'checkpoints'), { recursive: true });
    await writeFile(stage1('occupied', 'checkpoints'), 'mine');
    expectError(
      await train('occupied', '--resume'),
      4,
      /occupied\/stage1\/checkpoints, .* is not a folder; move it away/,
    );
    expect(await readFile(stage1('occupied', 'checkpoints'), 'utf8')).toBe('mine');
  });

  it.each([
    ['tokenizer_training.warmup_steps=7', /warmup_steps is 7, but all phases of stage 1 are 6 steps/],
    [
      'tokenizer_training.stage2.phases=[{steps: 6, lr: 1, early_stop: {patience_steps: 6, min_delta: 0}}]',
      /stage2\.phases\.0\.early_stop\.patience_steps is 6, which can never end a phase of 6 steps/,
    ],
    [
      'logging.keep_best=validation_psnr',
      /logging\.checkpoint_every.*logging\.images_every, for logging\.keep_best/,
    ],
  ])('%s is refused before anything is trained', async (override, message) => {
    const both = options('refused', override, '--stage', 'all');
    expectError(await alitok(...both), 2, message);
    expect(existsSync(at('refused'))).toBe(false);
  });
});
