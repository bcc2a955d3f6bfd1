import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadNewestCheckpoint, saveCheckpoint } from '../../src/checkpoint/training-checkpoint.js';
import { parseConfig } from '../../src/config/schema.js';
import type { TokenCache } from '../../src/data/codes.js';
import { type Dataset, openDataset } from '../../src/data/dataset.js';
import { type Position, TrainingLoader } from '../../src/data/loader.js';
import { drawPictures } from '../../src/data/pictures.js';
import { ConfigError } from '../../src/errors.js';
import { FROZEN_IN_STAGE_2 } from '../../src/models/tokenizer.js';
import { GeneratorTrainer } from '../../src/train/generator-trainer.js';
import { requireNetworks } from '../../src/train/loss-networks.js';
import { TokenizerTrainer } from '../../src/train/tokenizer-trainer.js';
import type { Metrics, Trainer } from '../../src/train/trainer.js';
import { describeEngines } from '../engines.js';

let folder: string;
let dataset: Dataset;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'trainers-'));
  dataset = await openDataset({
    folder: await drawPictures({ folder, size: 16, perClass: 2, seed: 1, split: 'train' }),
  });
});
afterAll(() => rm(folder, { recursive: true }));

const TRANSFORMER = { width: 16, layers: 1, heads: 2 };

/** A tiny experiment; the tokenizer's phases end with an adversarial one. */
function config(training: object = {}) {
  const phases = [
    { steps: 3, lr: 1e-3, lr_end: 5e-4, w_lpips: 0, w_perc: 0 },
    { steps: 200, lr: 1e-3, w_lpips: 0, w_perc: 0, adversarial: true },
  ];
  return parseConfig(
    {
      tokenizer: {
        image_size: 16,
        patch_size: 8,
        codebook_size: 16,
        token_size: 4,
        encoder: TRANSFORMER,
        decoder: { ...TRANSFORMER, class_tokens: 2 },
      },
      discriminator: { hidden_channels: 32, stages: 1 },
      tokenizer_training: {
        batch_size: 4,
        accumulation: 2,
        warmup_steps: 4,
        lecam_weight: 0.01,
        stage1: { phases },
        stage2: { phases },
        ...training,
      },
      generator: { ...TRANSFORMER, classes: 12 },
      generator_training: {
        steps: 200,
        batch_size: 4,
        accumulation: 2,
        lr: 3e-3,
        warmup_steps: 4,
        ema: true,
      },
    },
    'test',
  );
}

function tokenizerTrainer(stage: 1 | 2 = 1, training?: object): TokenizerTrainer {
  const open = (position?: Position) =>
    new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0, position });
  return new TokenizerTrainer(config(training), stage, open);
}

/** Sixteen images of two crops; each class has codes of its own. */
const CACHE: TokenCache = {
  path: 'memory',
  images: 16,
  crops: 2,
  tokens: 7,
  classes: Int32Array.from({ length: 16 }, (_, i) => i % 4),
  classNames: ['a', 'b', 'c', 'd'],
  async read(image, crop, into, offset) {
    for (let t = 0; t < 7; t++) into[offset + t] = (((image % 4) + 1) * (t + 1) + crop) % 16;
  },
  async close() {},
};

const generatorTrainer = () =>
  new GeneratorTrainer(config(), CACHE, {
    ...TRANSFORMER,
    classes: 12,
    codebook_size: 16,
    prefix_tokens: 3,
    grid: 2,
  });

type Startable = Trainer & { initialize(): void; dispose(): void; close?(): Promise<void> };

async function steps(trainer: Trainer, count: number): Promise<Metrics[]> {
  const metrics: Metrics[] = [];
  for (let i = 0; i < count; i++) metrics.push(await trainer.step());
  return metrics;
}

function snapshot(trainer: Trainer): object {
  const parts = { model: trainer.model, ...trainer.trainingParts };
  const entries = Object.entries(parts).flatMap(([part, parameters]) =>
    [...parameters].map((p) => [`${part}/${p.name}`, [...p.value.dataSync()]] as const),
  );
  return Object.fromEntries(entries);
}

describeEngines('trainers', (engine) => {
  const kinds: [string, () => Startable][] = [
    ['tokenizer stage 1', () => tokenizerTrainer(1)],
    ['tokenizer stage 2', () => tokenizerTrainer(2)],
    ['generator', generatorTrainer],
  ];
  for (const [name, create] of kinds) {
    it(`${name}: stopped and resumed, it is bit for bit the run that was not`, async () => {
      const run = join(folder, `${engine} ${name}`);
      const whole = create();
      whole.initialize();
      const expected = await steps(whole, 11);

      const first = create();
      first.initialize();
      expect(await steps(first, 6)).toEqual(expected.slice(0, 6));
      await saveCheckpoint(run, first, 1);
      const second = create();
      expect(await loadNewestCheckpoint(run, second)).toBe(6);
      expect(await steps(second, 5)).toEqual(expected.slice(6));
      expect(snapshot(second)).toEqual(snapshot(whole));
      for (const trainer of [whole, first, second]) {
        await trainer.close?.();
        trainer.dispose();
      }
    });

    it(`${name}: as many tensors after step 100 as after step 10, and none in the end`, async () => {
      const before = tf.memory().numTensors;
      const trainer = create();
      trainer.initialize();
      await steps(trainer, 10);
      const after10 = tf.memory().numTensors;
      await steps(trainer, 90);
      expect(tf.memory().numTensors).toBe(after10);
      await trainer.close?.();
      trainer.dispose();
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('the tokenizer learns', async () => {
    const phases = [{ steps: 60, lr: 3e-3, w_lpips: 0, w_perc: 0 }];
    const trainer = tokenizerTrainer(1, { stage1: { phases }, init_std: 0.1, colour_init: 'identity' });
    trainer.initialize();
    const metrics = await steps(trainer, 60);
    const mean = (rows: Metrics[]) => rows.reduce((sum, { mse }) => sum + mse, 0) / rows.length;
    expect(mean(metrics.slice(-10))).toBeLessThan(0.7 * mean(metrics.slice(0, 10)));
    await trainer.close();
    trainer.dispose();
  });

  it('the generator learns codes that follow from the class', async () => {
    const trainer = generatorTrainer();
    trainer.initialize();
    const metrics = await steps(trainer, 150);
    expect(metrics[0].loss).toBeCloseTo(Math.log(16), 1);
    expect(metrics.at(-1)!.loss).toBeLessThan(0.7 * Math.log(16));
    trainer.dispose();
  });

  it('stage 2 takes encoder and codebook from stage 1 and leaves them as they are', async () => {
    const [stage1, stage2] = [tokenizerTrainer(1), tokenizerTrainer(2)];
    stage1.initialize();
    stage2.initialize(stage1.tokenizer);
    await steps(stage2, 6);
    let moved = 0;
    for (const p of stage2.tokenizer.parameters) {
      const values = [...p.value.dataSync()];
      const source = stage1.tokenizer.parameters.get(p.name);
      if (FROZEN_IN_STAGE_2.test(p.name)) expect(values).toEqual([...source!.value.dataSync()]);
      else if (
        source?.shape.join() === p.shape.join() &&
        values.join() !== [...source.value.dataSync()].join()
      )
        moved += 1;
    }
    expect(moved).toBeGreaterThan(10);
    await stage2.close();
    for (const trainer of [stage1, stage2]) trainer.dispose();
  });

  it('once the adversary is on, tokenizer and discriminator take turns', async () => {
    const trainer = tokenizerTrainer(1);
    trainer.initialize();
    const metrics = await steps(trainer, 9);
    expect(metrics.map((row) => 'discriminator' in row)).toEqual([0, 0, 0, 0, 1, 0, 1, 0, 1].map(Boolean));
    expect(metrics.map((row) => 'adversarial' in row)).toEqual([0, 0, 0, 1, 0, 1, 0, 1, 0].map(Boolean));
    await trainer.close();
    trainer.dispose();
  });
});

describe('the networks that phases need', () => {
  const phase = { steps: 1, lr: 1e-3 };
  const config = (phases: object[], networks = {}) =>
    parseConfig({ tokenizer_training: { stage1: { phases } }, networks }, 'test');

  it('are named with where they are from, and how to go without', () => {
    const lpips = config([phase, { ...phase, w_lpips: 0.5 }]);
    expect(() => requireNetworks(lpips, 1)).toThrow(ConfigError);
    expect(() => requireNetworks(lpips, 1)).toThrow(
      "tokenizer_training.stage1.phases.1.w_lpips is 0.5, which needs networks.vgg16 (torchvision's vgg16-397923af.pth) and networks.lpips (the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth); name the files, or set tokenizer_training.stage1.phases.1.w_lpips=0 to train without",
    );
    expect(() => requireNetworks(config([{ ...phase, w_lpips: 1 }], { vgg16: 'x' }), 1)).toThrow(
      /needs networks\.lpips \(.*; name the file, or/,
    );
    expect(() => requireNetworks(config([{ ...phase, w_perc: 1 }]), 1)).toThrow(
      "networks.convnext (torchvision's convnext_small-0c510722.pth)",
    );
  });

  it('are those that some phase gives weight to', () => {
    const all = { vgg16: 'a', lpips: 'b', convnext: 'c' };
    expect(requireNetworks(config([phase], all), 1)).toEqual(new Set());
    expect(requireNetworks(config([phase, { ...phase, w_perc: 1 }], all), 1)).toEqual(new Set(['w_perc']));
    expect(requireNetworks(config([{ ...phase, w_lpips: 1, w_perc: 1 }], all), 1).size).toBe(2);
  });
});

it('a micro-batch of the token order does not depend on how it is read', async () => {
  const { TokenBatches } = await import('../../src/train/token-batches.js');
  const whole = await new TokenBatches(CACHE, 5).read(0, 40);
  const parts = new TokenBatches(CACHE, 5);
  const codes: number[] = [];
  for (const [position, count] of [
    [0, 3],
    [3, 20],
    [23, 17],
  ])
    codes.push(...(await parts.read(position, count)).codes);
  expect(codes).toEqual([...whole.codes]);
  const firstEpoch = [...(await new TokenBatches(CACHE, 5).read(0, 16)).classes].sort();
  expect(firstEpoch).toEqual([...CACHE.classes].sort());
  expect((await new TokenBatches(CACHE, 6).read(0, 40)).codes).not.toEqual(whole.codes);
});
