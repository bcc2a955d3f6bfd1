import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/schema.js';
import { openDataset } from '../../src/data/dataset.js';
import type { ImageSet } from '../../src/data/image-set.js';
import { type Position, TrainingLoader } from '../../src/data/loader.js';
import { ConfigError } from '../../src/errors.js';
import { psnr } from '../../src/eval/metrics/psnr.js';
import { Generator } from '../../src/models/generator/generator.js';
import type { PerceptualTerms } from '../../src/models/judges/perceptual.js';
import { toTensor } from '../../src/models/pixels.js';
import { FROZEN_IN_STAGE_2 } from '../../src/models/tokenizer/tokenizer.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';
import { loadNewestCheckpoint, saveCheckpoint } from '../../src/run/checkpoint.js';
import type { Metrics } from '../../src/run/metrics.js';
import { sizeOf } from '../../src/shapes.js';
import type { TokenCache } from '../../src/tokens/codes.js';
import { GeneratorTrainer } from '../../src/train/generator/trainer.js';
import { rehearse } from '../../src/train/rehearse.js';
import type { TrainingOptions } from '../../src/train/run-training.js';
import { requireNetworks } from '../../src/train/tokenizer/loss-networks.js';
import { TokenizerTrainer } from '../../src/train/tokenizer/trainer.js';
import type { Trainer } from '../../src/train/trainer.js';
import { describeEngines, openTested } from '../support/engines.js';
import { quietJob } from '../support/job.js';

let folder: string;
let dataset: ImageSet;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'trainers-'));
  dataset = await openDataset({
    folder: await drawPictures({ folder, size: 16, perClass: 2, seed: 1, split: 'train' }),
  });
});
afterAll(() => rm(folder, { recursive: true }));

const STILL_PHASES = [
  { steps: 2, lr: 1e-12, w_lpips: 0, w_perc: 0 },
  { steps: 9, lr: 1e-12, w_lpips: 0, w_perc: 0, adversarial: true },
];

/**
 * A tokenizer whose weights hardly change, so that rounding errors do not grow from step to step. The optimizer's moments
 * still show the gradients, and clustering moves the codebook.
 */
const STILL = {
  lecam_weight: 0,
  stage1: { phases: STILL_PHASES },
  stage2: { phases: STILL_PHASES },
};

const TRANSFORMER = { width: 16, layers: 1, heads: 2 };

/** A tiny experiment; the tokenizer's phases end with an adversarial one. */
function config(
  training: object = {},
  generatorTraining: object = {},
  generator: object = {},
  tokenizer: object = {},
) {
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
        ...tokenizer,
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
      generator: { ...TRANSFORMER, classes: 12, ...generator },
      generator_training: {
        steps: 200,
        batch_size: 4,
        accumulation: 2,
        lr: 3e-3,
        warmup_steps: 4,
        ema: true,
        ...generatorTraining,
      },
    },
    'test',
  );
}

function tokenizerTrainer(
  stage: 1 | 2 = 1,
  training?: object,
  tokenizer?: object,
  terms?: PerceptualTerms,
): TokenizerTrainer {
  const open = (position?: Position) =>
    new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0, position });
  return new TokenizerTrainer(config(training, {}, {}, tokenizer), stage, open, terms);
}

/** The tokenizer of the ICLR 2026 version: no extra prefix token, and an auxiliary loss with a perceptual term. */
function iclrTrainer(training?: object): TokenizerTrainer {
  const phases = [
    { steps: 3, lr: 1e-3, w_lpips: 0.5 },
    { steps: 200, lr: 1e-3, w_lpips: 0.5, adversarial: true },
  ];
  const terms: PerceptualTerms = { lpips: (x, y) => tf.mean(tf.abs(x.sub(y))) as tf.Scalar };
  return tokenizerTrainer(
    1,
    { aux_perceptual: true, stage1: { phases }, ...training },
    { prefix_tokens: 2 },
    terms,
  );
}

/** Sixteen images of k + 4 codes with two crops each; each class has its own codes. */
const cacheOf = (prefix: number): TokenCache => ({
  path: 'memory',
  images: 16,
  crops: 2,
  tokens: prefix + 4,
  classes: Int32Array.from({ length: 16 }, (_, i) => i % 4),
  classNames: ['a', 'b', 'c', 'd'],
  async read(image, crop, into, offset) {
    for (let t = 0; t < prefix + 4; t++) into[offset + t] = (((image % 4) + 1) * (t + 1) + crop) % 16;
  },
  async close() {},
});

const generatorTrainer = (training?: object, generator?: object, prefix_tokens = 3) =>
  new GeneratorTrainer(config({}, training, generator), cacheOf(prefix_tokens), {
    ...TRANSFORMER,
    classes: 12,
    codebook_size: 16,
    prefix_tokens,
    grid: 2,
  });

const adaptedTrainer = (lora: object, training?: object) =>
  generatorTrainer({ ema: false, layer_decay: 0.7, lora: { rank: 2, alpha: 4, ...lora }, ...training });

const unexpected = (message: string): void => {
  throw new Error(message);
};

type Startable = Trainer & { initialize(): void; dispose(): void; close?(): Promise<void> };

async function steps(trainer: Trainer, count: number): Promise<Metrics[]> {
  const metrics: Metrics[] = [];
  for (let i = 0; i < count; i++) metrics.push(await trainer.step());
  return metrics;
}

function snapshot(trainer: Trainer): Record<string, number[]> {
  const parts = { model: trainer.model, ...trainer.trainingParts };
  const entries = Object.entries(parts).flatMap(([part, parameters]) =>
    [...parameters].map((p): [string, number[]] => [`${part}/${p.name}`, [...p.value.dataSync()]]),
  );
  return Object.fromEntries(entries);
}

/** The largest difference between two sets of tensors, relative to the largest value of the tensor, or of its whole part. */
function largestDifference(
  actual: Record<string, number[]>,
  expected: Record<string, number[]>,
  except: RegExp,
): number {
  const largest = (values: number[]) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const kinds = new Map<string, number>();
  const kindOf = (name: string) => /^[^/]+\/([mv]\.)?/.exec(name)![0]; // a model's weights, or moments of one kind
  for (const [name, values] of Object.entries(expected))
    kinds.set(kindOf(name), Math.max(kinds.get(kindOf(name)) ?? 0, largest(values)));
  const compared = Object.entries(expected).filter(([name]) => !except.test(name));
  const differences = compared.map(([name, values]) => {
    const scale = Math.max(largest(values), 1e-3 * kinds.get(kindOf(name))!);
    return largest(values.map((value, i) => value - actual[name][i])) / (scale || 1);
  });
  return Math.max(...differences);
}

const KINDS: [string, (training?: object) => Startable][] = [
  ['tokenizer stage 1', (training) => tokenizerTrainer(1, training)],
  ['tokenizer stage 2', (training) => tokenizerTrainer(2, training)],
  ['tokenizer stage 1 of the ICLR version', iclrTrainer],
  ['generator', generatorTrainer],
  ['generator with merged adapters', (training) => adaptedTrainer({ merge: true }, training)],
  ['averaged adapters', (training) => adaptedTrainer({ merge: false }, { ema: true, ...training })],
  ['partly frozen generator', (training) => generatorTrainer({ freeze: ['blocks.0.attn'], ...training })],
  ['generator with a prefix of the grid', (training) => generatorTrainer(training, {}, 2)],
];

describeEngines('trainers', (engine) => {
  it('a rehearsal counts adapters once, and their moments and gradients', async () => {
    const trainer = adaptedTrainer({ merge: false }, { ema: false });
    const options = { label: 'generator', folder, config: config() } as TrainingOptions;
    const { memory, disk } = await rehearse(trainer, options, quietJob(engine));
    const { model, saved, trainingParts } = trainer as GeneratorTrainer;
    const bytes = (parameters: Iterable<{ shape: readonly number[] }>) =>
      4 * [...parameters].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
    const moments = bytes(trainingParts.optimizer);
    expect(memory.state).toBe(bytes(model) + 1.5 * moments);
    expect(disk.checkpoint).toBe(2 * bytes(saved) + moments);
    trainer.dispose!();
  });

  for (const [name, create] of KINDS) {
    it(`${name}: a stopped and resumed run is bit for bit the same as an uninterrupted one`, async () => {
      const run = join(folder, `${engine} ${name}`);
      const whole = create();
      whole.initialize();
      const expected = await steps(whole, 11);

      const first = create();
      first.initialize();
      expect(await steps(first, 6)).toEqual(expected.slice(0, 6));
      const note = { loop: { means: [] }, metrics: { loss: 0.1 }, interrupted: true };
      await saveCheckpoint(run, first, note);
      const second = create();
      if (second.derived) second.initialize(); // its checkpoints hold what is trained only
      expect(await loadNewestCheckpoint(run, second, unexpected)).toEqual(note);
      expect(second.steps).toBe(6);
      expect(await steps(second, 5)).toEqual(expected.slice(6));
      expect(second.state).toEqual(whole.state);
      expect(snapshot(second)).toEqual(snapshot(whole));
      for (const trainer of [whole, first, second]) {
        await trainer.close?.();
        trainer.dispose();
      }
    });

    it(`${name}: with activation checkpointing, it is bit for bit the same`, async () => {
      const runs = [];
      for (const checkpoint_activations of [false, true]) {
        const trainer = create({ checkpoint_activations });
        trainer.initialize();
        runs.push({ metrics: await steps(trainer, 7), values: snapshot(trainer) });
        await trainer.close?.();
        trainer.dispose();
      }
      expect(runs[1]).toEqual(runs[0]);
    });
  }

  it('recomputed activations are not kept', () => {
    const generator = new Generator({
      ...TRANSFORMER,
      layers: 4,
      classes: 12,
      codebook_size: 16,
      prefix_tokens: 3,
      grid: 2,
    });
    generator.parameters.initialize(Random.of(0, 'generator'));
    const [plain, recomputed] = [false, true].map((checkpointActivations) =>
      tf.tidy(() => {
        const before = tf.memory().numBytes;
        let after = 0;
        const codes = tf.zeros([2, 7], 'int32') as tf.Tensor2D;
        const loss = () => {
          const logits = generator.forward(tf.tensor1d([17, 18], 'int32'), codes, { checkpointActivations });
          after = tf.memory().numBytes;
          return generator.loss(logits, codes);
        };
        tf.grads(loss)([...generator.parameters].map((p) => p.value));
        return after - before;
      }),
    );
    expect(recomputed).toBeLessThan(plain / 4);
    generator.dispose();
  });

  it.each<[string, (accumulation: number) => Startable]>([
    ['tokenizer stage 1', (accumulation) => tokenizerTrainer(1, { ...STILL, accumulation })],
    ['tokenizer stage 2', (accumulation) => tokenizerTrainer(2, { ...STILL, accumulation })],
    [
      'generator',
      (accumulation) => generatorTrainer({ lr: 1e-12, lr_end: 1e-12, accumulation }, { dropout: 0 }),
    ],
  ])('%s: four micro-batches are one batch to rounding', async (_, create) => {
    const [one, four] = [create(1), create(4)];
    for (const trainer of [one, four]) trainer.initialize();
    const compare = async (count: number, except: RegExp) => {
      const [expected, actual] = [await steps(one, count), await steps(four, count)];
      actual.forEach((row, i) => {
        expect(Object.keys(row)).toEqual(Object.keys(expected[i]));
        for (const [name, value] of Object.entries(row))
          expect(value / (expected[i][name] || 1), name).toBeCloseTo(expected[i][name] === 0 ? 0 : 1, 4);
      });
      expect(largestDifference(snapshot(four), snapshot(one), except)).toBeLessThan(1e-4);
    };
    await compare(1, /^$/);
    // Entries that clustering moved to the same feature are equally near to others, so rounding decides between them.
    await compare(4, /quantize\./);
    for (const trainer of [one, four]) {
      await trainer.close?.();
      trainer.dispose();
    }
  });

  it('PSNR is the mean over the images of the step', async () => {
    const trainer = tokenizerTrainer(1);
    trainer.initialize();
    const loader = new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0 });
    const { images } = await loader.next();
    const originals = tf.tidy(() => toTensor(images, 16).dataSync<'float32'>());
    const reconstructions = tf.tidy(() =>
      trainer.tokenizer.forward(toTensor(images, 16)).image.dataSync<'float32'>(),
    );
    const size = originals.length / 4;
    const each = [0, 1, 2, 3].map((i) =>
      psnr(
        originals.subarray(i * size, (i + 1) * size),
        reconstructions.subarray(i * size, (i + 1) * size),
        1,
      ),
    );
    const metrics = await trainer.step();
    expect(metrics.psnr).toBeCloseTo(each.reduce((sum, one) => sum + one, 0) / 4, 3);
    expect(Math.abs(metrics.psnr + 10 * Math.log10(metrics.mse))).toBeGreaterThan(0.01);
    await loader.close();
    await trainer.close();
    trainer.dispose();
  });

  it('stage 2 takes encoder and codebook from stage 1 and does not change them', async () => {
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

describeEngines('trainers over many steps', (engine) => {
  beforeAll(() => openTested(engine, { threads: 1 })); // the steps are too small for several

  for (const [name, create] of KINDS)
    it(`${name}: the number of tensors is the same after steps 10 and 100, and zero at the end`, async () => {
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
});

describe('the networks that phases need', () => {
  const phase = { steps: 1, lr: 1e-3 };
  const config = (phases: object[], networks = {}) =>
    parseConfig({ tokenizer_training: { stage1: { phases } }, networks }, 'test');

  it('are named, with their source and how to train without them', () => {
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

  it('LPIPS is refused for images that are too small to be halved four times', () => {
    const all = { vgg16: 'a', lpips: 'b', convnext: 'c' };
    const phases = [
      { ...phase, w_perc: 1 },
      { ...phase, w_lpips: 1 },
    ];
    const sized = (image_size: number) =>
      parseConfig(
        {
          tokenizer: { image_size, patch_size: 1 },
          tokenizer_training: { stage1: { phases } },
          networks: all,
        },
        'test',
      );
    expect(requireNetworks(sized(16), 1).size).toBe(2);
    expect(() => requireNetworks(sized(15), 1)).toThrow(
      'tokenizer.image_size is 15, but tokenizer_training.stage1.phases.1.w_lpips is 1 and LPIPS needs images of 16 px at least; make them larger, or set tokenizer_training.stage1.phases.1.w_lpips=0 to train without',
    );
  });

  it('are those with a weight in some phase', () => {
    const all = { vgg16: 'a', lpips: 'b', convnext: 'c' };
    expect(requireNetworks(config([phase], all), 1)).toEqual(new Set());
    expect(requireNetworks(config([phase, { ...phase, w_perc: 1 }], all), 1)).toEqual(new Set(['w_perc']));
    expect(requireNetworks(config([{ ...phase, w_lpips: 1, w_perc: 1 }], all), 1).size).toBe(2);
  });
});

it('micro-batches of tokens do not depend on how they are split', async () => {
  const { TokenBatches } = await import('../../src/train/generator/token-batches.js');
  const whole = await new TokenBatches(cacheOf(3), 5).read(0, 40);
  const parts = new TokenBatches(cacheOf(3), 5);
  const codes: number[] = [];
  for (const [position, count] of [
    [0, 3],
    [3, 20],
    [23, 17],
  ])
    codes.push(...(await parts.read(position, count)).codes);
  expect(codes).toEqual([...whole.codes]);
  const firstEpoch = [...(await new TokenBatches(cacheOf(3), 5).read(0, 16)).classes].sort();
  expect(firstEpoch).toEqual([...cacheOf(3).classes].sort());
  expect((await new TokenBatches(cacheOf(3), 6).read(0, 40)).codes).not.toEqual(whole.codes);
});
