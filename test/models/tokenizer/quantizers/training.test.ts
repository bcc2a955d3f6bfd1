import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { fingerprint, loadTokenizer } from '../../../../src/checkpoint/tokenizer.js';
import { parseConfig } from '../../../../src/config/schema.js';
import { openDataset } from '../../../../src/data/dataset.js';
import type { ImageSet } from '../../../../src/data/image-set.js';
import { type Position, TrainingLoader } from '../../../../src/data/loader.js';
import type { Stage } from '../../../../src/models/geometry.js';
import { toTensor } from '../../../../src/models/pixels.js';
import { QUANTIZER_NAMES } from '../../../../src/models/tokenizer/quantizers/index.js';
import { drawPictures } from '../../../../src/quickstart/pictures.js';
import { TokenizerTrainer } from '../../../../src/train/tokenizer/trainer.js';
import { describeEngines } from '../../../support/engines.js';
import { TOKENIZER } from '../../../support/small-sizes.js';

let folder: string;
let dataset: ImageSet;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'quantizers-'));
  dataset = await openDataset({
    folder: await drawPictures({ folder, size: 16, perClass: 1, seed: 1, split: 'train' }),
  });
});
afterAll(() => rm(folder, { recursive: true }));

const open = (position?: Position) =>
  new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0, position });

/** 16 codes of 4 numbers, for every quantizer. */
function config(quantizer: string) {
  const stage = { phases: [{ steps: 9, lr: 1e-2 }] };
  return parseConfig(
    {
      tokenizer: { ...TOKENIZER, quantizer, ...(quantizer === 'fsq' && { fsq_levels: [2, 2, 2, 2] }) },
      tokenizer_training: { batch_size: 4, warmup_steps: 1, init_std: 0.2, stage1: stage, stage2: stage },
    },
    quantizer,
  );
}

const values = (trainer: TokenizerTrainer) =>
  new Map([...trainer.model].map((p) => [p.name, [...p.value.dataSync()]]));

/** Trains a few steps; returns the trainer, and its parameters before and after. */
async function train(quantizer: string, stage: Stage, from?: TokenizerTrainer) {
  const trainer = new TokenizerTrainer(config(quantizer), stage, open);
  trainer.initialize(from?.tokenizer);
  const before = values(trainer);
  const losses: number[] = [];
  for (let i = 0; i < 6; i++) losses.push((await trainer.step()).loss);
  await trainer.close();
  expect(losses.every(Number.isFinite)).toBe(true);
  expect(losses.at(-1)).toBeLessThan(losses[0]);
  return { trainer, before, after: values(trainer) };
}

describeEngines('a tokenizer of each quantizer', (engine) => {
  it('trains both stages, and its files give the same codes and images', async () => {
    const { images } = await open().next();
    const x = toTensor(images, 16);
    const prints: string[] = [];
    for (const quantizer of QUANTIZER_NAMES) {
      const one = await train(quantizer, 1);
      const two = await train(quantizer, 2, one.trainer);
      for (const [name, value] of one.after)
        if (/^(encoder\.|latent_tokens$|quantize\.(?!embed_prob))/.test(name))
          expect(two.after.get(name), `${quantizer}: ${name} in stage 2`).toEqual(value);
      for (const [name, value] of one.before) {
        const frozen = quantizer === 'simvq' && name === 'quantize.embedding.weight';
        if (frozen) expect(one.after.get(name)).toEqual(value);
        else expect(one.after.get(name), `${quantizer}: ${name}`).not.toEqual(value);
      }

      const path = join(folder, `${engine}-${quantizer}.safetensors`);
      await two.trainer.saveModel(path);
      const loaded = await loadTokenizer(path);
      expect(loaded.config).toEqual(config(quantizer).tokenizer);
      const codes = two.trainer.tokenizer.tokenize(x);
      expect([...loaded.tokenize(x).dataSync()]).toEqual([...codes.dataSync()]);
      expect(new Set(codes.dataSync()).size, `${quantizer}: codes in use`).toBeGreaterThan(1);
      const image = loaded.detokenize(codes);
      expect([...image.dataSync()]).toEqual([...two.trainer.tokenizer.detokenize(codes).dataSync()]);
      // Decoding the codes gives the trained output, up to the rounding of the straight-through sum.
      const trained = two.trainer.tokenizer.forward(x).image;
      expect(image.sub(trained).abs().max().dataSync()[0]).toBeLessThan(1e-4);

      const print = await fingerprint(loaded);
      expect(await fingerprint(one.trainer.tokenizer)).toBe(print);
      prints.push(print);
      for (const { trainer } of [one, two]) trainer.dispose();
      loaded.parameters.dispose();
    }
    expect(new Set(prints).size).toBe(QUANTIZER_NAMES.length);
    tf.dispose(x);
  });
});
