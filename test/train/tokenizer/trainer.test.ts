import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../src/config/schema.js';
import { openDataset } from '../../../src/data/dataset.js';
import type { ImageSet } from '../../../src/data/image-set.js';
import { type Position, TrainingLoader } from '../../../src/data/loader.js';
import type { Stage } from '../../../src/models/geometry.js';
import type { PerceptualTerms } from '../../../src/models/judges/perceptual.js';
import { drawPictures } from '../../../src/quickstart/pictures.js';
import { TokenizerTrainer } from '../../../src/train/tokenizer/trainer.js';
import { openTested } from '../../support/engines.js';
import { TOKENIZER } from '../../support/small-sizes.js';

let folder: string;
let dataset: ImageSet;
beforeAll(async () => {
  await openTested('wasm');
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-trainer-'));
  dataset = await openDataset({
    folder: await drawPictures({ folder, size: 16, perClass: 1, seed: 1, split: 'train' }),
  });
});
afterAll(() => rm(folder, { recursive: true }));

/** Stand-ins for the networks, which both see all pixels. */
const TERMS: PerceptualTerms = {
  lpips: (x, y) => tf.mean(tf.abs(x.sub(y))) as tf.Scalar,
  classifier: (x, y) => tf.mean(tf.squaredDifference(x.square(), y.square())) as tf.Scalar,
};

/** The metrics of the first step of each of two phases: with both perceptual terms, and with none. */
async function metricsOf(stage: Stage, prefix_tokens: number | null, aux_perceptual: boolean) {
  const phases = [
    { steps: 1, lr: 1e-3, w_lpips: 0.7, w_perc: 0.3 },
    { steps: 1, lr: 1e-3 },
  ];
  const config = parseConfig(
    {
      tokenizer: { ...TOKENIZER, prefix_tokens },
      tokenizer_training: {
        ...{ batch_size: 2, warmup_steps: 1, init_std: 0.1, aux_weight: 10, aux_perceptual },
        stage1: { phases },
        stage2: { phases },
      },
    },
    'test',
  );
  const open = (position?: Position) =>
    new TrainingLoader({ dataset, imageSize: 16, batchSize: 2, seed: 0, position });
  const trainer = new TokenizerTrainer(config, stage, open, TERMS);
  trainer.initialize();
  const metrics = [await trainer.step(), await trainer.step()];
  await trainer.close();
  trainer.dispose();
  return metrics;
}

describe.each([
  ['grid + 1', null, 3 / 4],
  ['grid', 2, 2 / 4],
])('with a prefix of %s, the auxiliary loss', (_, prefix, share) => {
  it('has the perceptual terms of the phase, all with the weight of the auxiliary error', async () => {
    const [both, none] = await metricsOf(1, prefix, true);
    const { loss, mse, aux_mse, aux_lpips, aux_perceptual, quantizer, lpips, perceptual } = both;
    const auxiliary = aux_mse + 0.7 * aux_lpips + 0.3 * aux_perceptual;
    expect(loss).toBeCloseTo(mse + 10 * share * auxiliary + quantizer + 0.7 * lpips + 0.3 * perceptual, 4);
    for (const term of [aux_lpips, aux_perceptual]) expect(term).toBeGreaterThan(1e-3);
    expect(aux_lpips).not.toBe(lpips); // the two images differ in the first row of patches
    expect(none.loss).toBeCloseTo(none.mse + 10 * share * none.aux_mse + none.quantizer, 4);
    expect(Object.keys(none).filter((name) => /lpips|perceptual/.test(name))).toEqual([]);
  });

  it('is the error alone by default, and not there in stage 2', async () => {
    const [plain] = await metricsOf(1, prefix, false);
    const { loss, mse, aux_mse, quantizer, lpips, perceptual } = plain;
    expect(loss).toBeCloseTo(mse + 10 * share * aux_mse + quantizer + 0.7 * lpips + 0.3 * perceptual, 4);
    const [second] = await metricsOf(2, prefix, true);
    expect(second.loss).toBeCloseTo(second.mse + 0.7 * second.lpips + 0.3 * second.perceptual, 4);
    for (const row of [plain, second])
      expect(Object.keys(row).filter((name) => /^aux_(?!mse)/.test(name))).toEqual([]);
  });
});
