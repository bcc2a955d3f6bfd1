import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import type { Config } from '../../src/config/schema.js';
import { ConfigError, Interrupted } from '../../src/errors.js';
import type { Job } from '../../src/job/job.js';
import { drawPictures, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';
import { sampleImages } from '../../src/sample/sample-images.js';
import { tokenizeDataset } from '../../src/tokens/tokenize-dataset.js';
import { trainFeatures } from '../../src/train/features/train.js';
import { checkWarmup, trainGenerator } from '../../src/train/generator/train.js';
import { checkPhases } from '../../src/train/tokenizer/phases.js';
import { trainTokenizer } from '../../src/train/tokenizer/train.js';
import { writeConvNeXt, writeLPIPS, writeVGG16 } from '../golden/network-files.js';
import { ConfigSpace, namedKeys, toOverrides, unknownKeys, type Values } from '../support/config-space.js';
import { canRun, openTested } from '../support/engines.js';
import { quietJob } from '../support/job.js';

const ENGINE = canRun('libtorch') ? 'libtorch' : 'wasm';
/** Minimum number of configs; more are drawn until every key has had each of its values. */
const COUNT = Number(process.env.ALITOK_TEST_CONFIGS ?? 200);

let folder: string;
beforeAll(async () => {
  await openTested(ENGINE, { threads: 1 }); // the models are too small for several
  folder = await mkdtemp(join(tmpdir(), 'configs-'));
  await drawPictures({ folder, size: 20, perClass: 2, seed: 1, split: 'train' });
  for (const name of PICTURE_CLASSES.slice(CLASSES))
    await rm(join(folder, 'train', name), { recursive: true });
});
afterAll(() => rm(folder, { recursive: true }));

const SIZES = [8, 16, 32];
const LIMITS = {
  image_size: [1, 8, 12, 16, 32],
  patch_size: [1, 2, 4, 8],
  prefix_tokens: [null, 1, 2, 4],
  codebook_size: [2, 4, 16, 32],
  token_size: [1, 4, 8],
  fsq_levels: [null, [4], [2, 2, 2, 2]],
  width: [1, 4, ...SIZES],
  heads: [1, 2, 4],
  layers: [1, 2],
  steps: [1, 2, 4],
  patience_steps: [1, 2, 3],
  hidden_channels: [32, 64],
  stages: [1, 2, 3],
  channels: [[8], [16, 8], [8, 8, 16]],
  classes: [1, 2, 3],
  // At higher rates training diverges, which is not a defect of the program.
  lr: [1e-6, 1e-3, 0.1],
  lr_end: [1e-6, 1e-3, 0.1],
  // Other patterns match no parameter of some model, which refuses them.
  freeze: [[], ['*.bias']],
  // These need files of large networks.
  w_lpips: [0],
  w_perc: [0],
};

/** The paths of data and networks are not drawn, nor are adapters, which need trained weights. */
const FIXED: Values = {
  'generator_training.lora': null,
  'networks.vgg16': null,
  'networks.lpips': null,
  'networks.convnext': null,
  'data.train_list': null,
  'data.validation_list': null,
  'data.validation': null,
};

const PHASES = [
  { steps: 2, lr: 1e-3 },
  { steps: 2, lr: 1e-3, adversarial: true },
];
const transformer = { width: 16, layers: 1, heads: 2 };
const section = (name: string, values: object): Values =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`${name}.${key}`, value]));

/** Values of keys that are not drawn for a config. */
const BASE: Values = {
  ...section('tokenizer', { image_size: 16, patch_size: 8, codebook_size: 16, token_size: 4 }),
  ...section('tokenizer.encoder', transformer),
  ...section('tokenizer.decoder', { ...transformer, class_tokens: 2 }),
  ...section('discriminator', { hidden_channels: 32, stages: 1 }),
  ...section('tokenizer_training', { batch_size: 4, warmup_steps: 1 }),
  ...section('tokenizer_training.stage1', { phases: PHASES }),
  ...section('tokenizer_training.stage2', { phases: PHASES }),
  ...section('generator', { ...transformer, classes: 2 }),
  ...section('generator_training', { steps: 3, batch_size: 4, warmup_steps: 1 }),
  ...section('features', { channels: [8], steps: 3, batch_size: 4 }),
  ...section('tokenize', { crops: 'flip' }),
  ...section('logging', { validation_images: 4 }),
};

/** Classes of the pictures. */
const CLASSES = 2;

/** One config in this many may be one that the trainers refuse. */
const UNCHECKED = 10;

/** Most patches per side, since attention over many tokens is slow. */
const MOST_PATCHES = 8;

const space = () =>
  new ConfigSpace({
    base: BASE,
    fixed: { ...FIXED, 'data.train': join(folder, 'train') },
    limits: LIMITS,
  });

function checkSize({ tokenizer: { image_size, patch_size } }: Config): void {
  if (image_size / patch_size > MOST_PATCHES)
    throw new ConfigError('tokenizer.image_size is too large for tokenizer.patch_size');
}

/** Refuses a config that the trainers would refuse. */
function checkAll(config: Config): void {
  checkSize(config);
  for (const stage of [1, 2] as const) checkPhases(config, stage);
  checkWarmup(config);
  if (config.generator.classes < CLASSES) throw new ConfigError('generator.classes is too small');
}

/** Trains two steps to a checkpoint, and a third one from there. */
async function twice(train: (resume: boolean, job: Job) => Promise<void>): Promise<void> {
  for (const [resume, step] of [
    [false, 2],
    [true, 3],
  ] as const)
    await train(resume, quietJob(ENGINE, step)).catch((error) => {
      if (!(error instanceof Interrupted)) throw error;
    });
}

/** All uses of a config, in order: the name of each result, and how it is made. */
function journey(config: Config, at: (name: string) => string): [string, () => Promise<unknown>][] {
  const tokenizer = (stage: 1 | 2) => () =>
    twice((resume, job) => trainTokenizer({ config, run: at('tokenizer'), stages: [stage], resume }, job));
  const tokens = at('tokens.safetensors');
  return [
    ['tokenizer/stage1', tokenizer(1)],
    ['tokenizer/stage2', tokenizer(2)],
    [
      'tokens.safetensors',
      () => {
        const { crops, batch_size: batchSize } = config.tokenize;
        const images = { tokenizer: at('tokenizer/stage2'), folder: config.data.train!, out: tokens };
        return tokenizeDataset({ ...images, crops, batchSize }, quietJob(ENGINE));
      },
    ],
    [
      'generator',
      () => {
        const inputs = { tokens, tokenizer: at('tokenizer/stage2') };
        return twice((resume, job) =>
          trainGenerator({ config, run: at('generator'), ...inputs, resume }, job),
        );
      },
    ],
    [
      'samples',
      () => {
        const models = { generator: at('generator'), tokenizer: at('tokenizer/stage2') };
        const images = { images: { count: 2 }, out: at('samples'), png: false, grid: false };
        return sampleImages({ ...models, ...images, weights: 'float32', settings: {} }, quietJob(ENGINE));
      },
    ],
    ['features', () => twice((resume, job) => trainFeatures({ config, run: at('features'), resume }, job))],
  ];
}

/** The values as command-line arguments. */
function commandLine(values: Values): string {
  return toOverrides(values)
    .map((text) => `'${text.replaceAll("'", "'\\''")}'`)
    .join(' ');
}

/** Runs a config up to the `last` result: undefined if it trained, otherwise the message that refused it. */
async function outcome(values: Values, last = 'features'): Promise<string | undefined> {
  const config = loadConfig(undefined, toOverrides(values));
  const runs = await mkdtemp(join(folder, 'run-'));
  const before = tf.memory().numTensors;
  let refused: string | undefined;
  for (const [made, make] of journey(config, (name) => join(runs, name))) {
    try {
      await make();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw new Error(`${made}: ${error}`, { cause: error });
      refused = error.message;
      expect(existsSync(join(runs, made)), `${made} was begun before it was refused: ${refused}`).toBe(false);
      expect(namedKeys(refused), `keys that are named by: ${refused}`).not.toEqual([]);
      expect(unknownKeys(refused)).toEqual([]);
      break;
    }
    if (made === last) break;
  }
  expect(tf.memory().numTensors, 'tensors').toBe(before);
  await rm(runs, { recursive: true });
  return refused;
}

it('every config that validates trains and samples, or is refused in a line that names the key', async () => {
  const configs = space();
  const random = Random.of(0, 'configs');
  /** Values of each key that no trained config has had yet. */
  const untried = new Map([...configs.keys.keys()].map((key) => [key, configs.values(key, random)]));
  const choices = (key: string) => {
    const left = untried.get(key)!;
    return left.length > 0 ? left : configs.values(key, random);
  };
  const tried = (key: string, value: unknown) =>
    untried.set(
      key,
      untried.get(key)!.filter((other) => JSON.stringify(other) !== JSON.stringify(value)),
    );
  let trained = 0;
  const refused: string[] = [];
  const failed: string[] = [];
  for (let i = 0; ; i++) {
    const drawn = trained + refused.length + failed.length;
    const checked = drawn % UNCHECKED !== 0;
    const next = [...untried].find(([, values]) => values.length > 0);
    if (!next && drawn >= COUNT) break;
    const wanted = next && checked ? { [next[0]]: next[1][0] } : {};
    const values = configs.draw(random.fork(i), wanted, choices, checked ? checkAll : checkSize);
    for (const [key, value] of Object.entries(wanted)) tried(key, value);
    if (!values) continue; // such as one class
    try {
      const message = await outcome(values);
      if (message !== undefined) {
        refused.push(message);
        continue;
      }
      trained += 1;
      for (const [key, value] of Object.entries(values)) if (untried.has(key)) tried(key, value);
    } catch (error) {
      failed.push(`${(error as Error).message}; the config: ${commandLine(values)}`);
    }
  }
  expect(failed).toEqual([]);
  expect(trained / (trained + refused.length)).toBeGreaterThan(0.8);
}, 3_600_000);

it('a config with the networks of the perceptual terms does too', async () => {
  const [vgg16, lpips, convnext] = ['vgg16.pth', 'lpips.pth', 'convnext.pth'].map((name) =>
    join(folder, name),
  );
  await Promise.all([writeVGG16(vgg16), writeLPIPS(lpips), writeConvNeXt(convnext)]);
  const values = (image_size: number, weights: object): Values => ({
    ...BASE,
    ...section('networks', { vgg16, lpips, convnext }),
    'data.train': join(folder, 'train'),
    'tokenizer.image_size': image_size,
    'tokenizer_training.batch_size': 1,
    'tokenizer_training.aux_perceptual': true,
    'tokenizer_training.stage1.phases': [{ steps: 3, lr: 1e-3, ...weights }],
    'logging.validation_images': 1,
  });
  expect(await outcome(values(16, { w_lpips: 1, w_perc: 0.1 }), 'tokenizer/stage1')).toBeUndefined();
  expect(await outcome(values(8, { w_lpips: 1 }))).toMatch(/image_size is 8, but .*w_lpips is 1/);
});
