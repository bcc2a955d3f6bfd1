import { existsSync, readdirSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, expect, it } from 'vitest';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';
import { start, succeed, TINY, temporaryFolder } from './alitok.js';
import { contents } from './run-contents.js';

/**
 * Runs the whole pipeline twice: undisturbed, and killed again and again (SIGKILL, which a program cannot handle) and
 * restarted by the same command, once stopped by SIGTERM. At the end, both folders are the same, byte for byte.
 */
const at = await temporaryFolder();
const random = Random.of(Number(process.env.ALITOK_TORTURE_SEED ?? 5), 'torture');

/** Recipes with everything that has state: phases that may end early, an adversary, dropout, an average, clustering. */
const RECIPE = [
  'tokenizer_training.accumulation=2',
  'tokenizer_training.lecam_weight=0.01',
  'tokenizer_training.warmup_steps=8',
  'tokenizer_training.stage1.phases=[{steps: 40, lr: 1.0e-3, early_stop: {patience_steps: 9, min_delta: 0.001}}, {steps: 40, lr: 1.0e-3, lr_end: 1.0e-4, adversarial: true}]',
  'tokenizer_training.stage2.phases=[{steps: 20, lr: 1.0e-3}, {steps: 30, lr: 1.0e-3, adversarial: true}]',
  'discriminator={hidden_channels: 32, stages: 1}',
  'generator_training={steps: 80, batch_size: 4, accumulation: 2, warmup_steps: 8, ema: true}',
  'tokenize={crops: flip, batch_size: 4}',
  // Intervals do not coincide: means, usage and previews are unfinished when a checkpoint is due.
  'logging={metrics_every: 7, images_every: 9, checkpoint_every: 4, keep_checkpoints: 2, keep_every: 16, validation_images: 4}',
];

type Command = string[];

function commands(root: string): Record<'tokenizer' | 'tokenize' | 'generator' | 'sample', Command> {
  const [tokenizer, tokens, generator] = ['tokenizer', 'tokens.safetensors', 'generator'].map((name) =>
    at(root, name),
  );
  const common = ['--threads', '1', '-c', TINY];
  return {
    tokenizer: [
      'train-tokenizer',
      '-d',
      at('train'),
      '-r',
      tokenizer,
      '--resume',
      'auto',
      ...common,
      ...RECIPE,
    ],
    tokenize: ['tokenize', '--tokenizer', tokenizer, '-d', at('train'), '-o', tokens, ...common, ...RECIPE],
    generator: [
      ...['train-ar', '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator, '--resume', 'auto'],
      ...[...common, ...RECIPE],
    ],
    sample: [
      ...['sample', '-g', generator, '--tokenizer', tokenizer, '-o', at(root, 'samples')],
      ...['--per-class', '4', '--batch-size', '2', '--threads', '1'],
    ],
  };
}

const size = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

/** Waits for the moment to kill a process, while `alive`; returns the signal if it is not SIGKILL. */
type Moment = (alive: () => boolean) => Promise<unknown>;

async function until(holds: () => boolean, alive: () => boolean): Promise<void> {
  while (alive() && !holds()) await delay(1);
}

/** During startup, while it loads or resumes. */
const early =
  (milliseconds: number): Moment =>
  () =>
    delay(random.integer(milliseconds));

/** Once a file has grown by up to `bytes` bytes. */
const grown =
  (path: string, bytes: number): Moment =>
  async (alive) => {
    const target = size(path) + 1 + random.integer(bytes);
    await until(() => size(path) >= target, alive);
    await delay(random.integer(5));
  };

/** While one of the next checkpoints is being written, or just after it. */
const checkpointing =
  (run: string): Moment =>
  async (alive) => {
    const folder = at(run, 'checkpoints');
    const seen = new Set<string>();
    const wanted = 1 + random.integer(3);
    await until(() => {
      if (existsSync(folder))
        for (const name of readdirSync(folder)) if (name.endsWith('.partial')) seen.add(name);
      return seen.size >= wanted;
    }, alive);
    await delay(random.integer(12));
  };

/** Sends SIGTERM instead, so that the process saves. */
const politely =
  (moment: Moment): Moment =>
  async (alive) => {
    await moment(alive);
    return 'SIGTERM';
  };

let kills = 0;

/** Starts a command and kills it at each moment in turn, then runs it to its end. */
async function torture(command: Command, moments: readonly Moment[]): Promise<void> {
  for (const moment of moments) {
    const { child, outcome } = start(...command);
    const signal = (await moment(() => child.exitCode === null)) === 'SIGTERM' ? 'SIGTERM' : 'SIGKILL';
    child.kill(signal);
    const { code, stderr } = await outcome;
    if (code !== (signal === 'SIGKILL' ? null : 130))
      throw new Error(`not ended by ${signal}: ${code}\n${stderr}`);
    if (signal === 'SIGKILL') kills += 1;
  }
  await succeed(...command);
}

beforeAll(async () => {
  await drawPictures({ folder: at(), size: 16, perClass: 6, seed: 1, split: 'train' });
});

it('killed at any moment and restarted, the pipeline gives the same results as undisturbed', async () => {
  const whole = commands('whole');
  const undisturbed = (async () => {
    for (const command of Object.values(whole)) await succeed(...command);
  })();
  const killed = commands('killed');
  const lines = (run: string) => grown(at(run, 'metrics.jsonl'), 300);
  const [stage1, stage2] = ['killed/tokenizer/stage1', 'killed/tokenizer/stage2'];
  await torture(killed.tokenizer, [
    ...[early(1200), lines(stage1), checkpointing(stage1), early(1200), checkpointing(stage1)],
    ...[politely(lines(stage1)), lines(stage2), checkpointing(stage2), checkpointing(stage2), lines(stage2)],
  ]);
  const codes = grown(at('killed/tokens.safetensors.partial/codes'), 400);
  await torture(killed.tokenize, [codes, early(600), codes, codes]);
  const generator = 'killed/generator';
  await torture(killed.generator, [
    ...[lines(generator), checkpointing(generator), early(1200), lines(generator), checkpointing(generator)],
  ]);
  const pixels = grown(at('killed/samples/partial/pixels'), 6000);
  await torture(killed.sample, [pixels, early(600), pixels, pixels]);
  await undisturbed;
  expect(kills).toBeGreaterThanOrEqual(20);
  const [expected, found] = [await contents(at('whole')), await contents(at('killed'))];
  // No file contains the path of its folder, so the comparison needs no exceptions.
  expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
  expect(found).toEqual(expected);
  expect(Object.keys(found)).toContain('generator/checkpoints/step-0000064/optimizer.safetensors');
}, 600_000);
