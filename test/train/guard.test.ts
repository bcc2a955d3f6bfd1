import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/schema.js';
import { openDataset } from '../../src/data/dataset.js';
import { type Position, TrainingLoader } from '../../src/data/loader.js';
import { openEngine } from '../../src/engine/index.js';
import { TrainingError } from '../../src/errors.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { Guard } from '../../src/train/guard.js';
import { TokenizerTrainer } from '../../src/train/tokenizer/trainer.js';
import { describeEngines } from '../support/engines.js';

let folder: string;
let openBatches: (position?: Position) => TrainingLoader;
let warnings: string[];

beforeAll(async () => {
  await openEngine('wasm', { threads: 1 });
  folder = mkdtempSync(join(tmpdir(), 'alitok-guard-'));
  const drawn = await drawPictures({ folder, size: 16, perClass: 1, seed: 1, split: 'train' });
  const dataset = await openDataset({ folder: drawn });
  openBatches = (position) => new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0, position });
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  warnings = [];
});

/** A guarded trainer with a loss that is NaN at the steps `bad`. */
function guarded(bad: readonly number[], guards: object = {}) {
  const size = { width: 16, layers: 1, heads: 2 };
  const config = parseConfig(
    {
      tokenizer: {
        ...{ image_size: 16, patch_size: 8, codebook_size: 16, token_size: 4 },
        encoder: size,
        decoder: { ...size, class_tokens: 2 },
      },
      tokenizer_training: {
        ...{ batch_size: 4, warmup_steps: 0 },
        stage1: { phases: [{ steps: 20, lr: 1e-3, w_lpips: 1 }] },
      },
      guards,
    },
    'test',
  );
  const lpips = (x: tf.Tensor4D, y: tf.Tensor4D) =>
    tf
      .squaredDifference(x, y)
      .mean()
      .mul(bad.includes(trainer.steps + 1) ? Number.NaN : 1) as tf.Scalar;
  const trainer: TokenizerTrainer = new TokenizerTrainer(config, 1, openBatches, { lpips });
  trainer.initialize();
  const reporter = {
    progress: () => ({ update() {}, stop() {} }),
    info() {},
    warn: (message: string) => void warnings.push(message),
  };
  return { trainer, guard: new Guard(trainer, { folder, guards: config.guards, reporter }) };
}

/** Everything that a step changes, except the position in the data and the schedule. */
function snapshot(trainer: TokenizerTrainer): object {
  const { optimizer_steps, lecam, usage } = trainer.state;
  const parts = [trainer.model, ...Object.values(trainer.trainingParts)];
  const tensors = parts.flatMap((parameters) => [...parameters].map((p) => [...p.value.dataSync()]));
  return { optimizer_steps, lecam, usage, tensors };
}

it('stops before a bad step, and writes its diagnostics to a file', async () => {
  const { trainer, guard } = guarded([2]);
  await guard.step();
  const before = snapshot(trainer);
  await expect(guard.step()).rejects.toThrow(TrainingError);
  expect(snapshot(trainer)).toEqual(before);
  const { step, metrics, batch } = JSON.parse(readFileSync(join(folder, 'nonfinite-0000002.json'), 'utf8'));
  expect([step, metrics.lpips, metrics.loss, batch.images.length]).toEqual([2, 'NaN', 'NaN', 4]);
  expect(batch.images[0]).toMatch(/^[a-z]+-[a-z]+\/\d+\.png$/);
  await trainer.close();
  trainer.dispose();
});

it('skips bad steps without any other change, and counts them', async () => {
  const { trainer, guard } = guarded([2, 3, 5], { on_nonfinite: 'skip', max_skipped: 2 });
  await guard.step();
  const before = snapshot(trainer);
  expect([await guard.step(), await guard.step()]).toEqual([undefined, undefined]);
  expect(snapshot(trainer)).toEqual(before);
  expect(trainer.steps).toBe(3);
  expect(trainer.state.position).toEqual({ epoch: 1, offset: 0 });
  expect(await guard.step()).toMatchObject({ loss: expect.any(Number) });
  expect(await guard.step()).toBeUndefined();
  expect(guard.metrics).toEqual({ skipped_steps: 3 });
  expect(guard.state).toEqual({ skipped: 3, in_a_row: 1 });
  expect(warnings).toHaveLength(3);
  expect(warnings[0]).toMatch(/^step 2 was not made: .*lpips NaN.*; it is skipped/);
  expect(readdirSync(folder)).toContain('nonfinite-0000005.json');
  await trainer.close();
  trainer.dispose();
});

it('never writes non-finite parameters to a checkpoint', async () => {
  const { trainer, guard } = guarded([]);
  guard.checkParameters();
  const [first] = trainer.model;
  first.value = tf.fill([...first.shape], Number.NaN);
  expect(() => guard.checkParameters()).toThrow('the parameters are not finite after step 0');
  trainer.dispose();
});

describeEngines('a non-finite number', () => {
  it('stops a step wherever it is in the weights', async () => {
    const { trainer, guard } = guarded([]);
    const parameters = [...trainer.model];
    const good = parameters.map((p) => p.value.dataSync().slice());
    const put = (i: number, values: ArrayLike<number>) => {
      parameters[i].value = tf.tensor(Float32Array.from(values), [...parameters[i].shape]);
    };
    /** The parameters for which a step succeeds after `change` has been applied to their values. */
    const passed = async (change: (values: ArrayLike<number>) => ArrayLike<number>) => {
      const names: string[] = [];
      for (const [i, { name, buffer }] of parameters.entries()) {
        if (buffer) continue;
        put(i, change(good[i]));
        try {
          await guard.step();
          names.push(name);
          for (const [j, values] of good.entries()) put(j, values);
        } catch (error) {
          if (!(error instanceof TrainingError)) throw error;
          put(i, good[i]);
        }
      }
      return names;
    };
    const first = (value: number) => (values: ArrayLike<number>) => [value, ...Array.from(values).slice(1)];
    expect(await passed(first(Number.NaN))).toEqual([]);
    // The sigmoid turns large values after the last normalization into ones and zeros.
    const biases = ['decoder.conv_out.bias', 'decoder.conv_out_aux.bias'];
    expect(await passed(first(Number.POSITIVE_INFINITY))).toEqual(biases);
    const last = parameters
      .map((p) => p.name)
      .filter((name) => /^decoder\.(ln_post|ffn|conv_out)/.test(name));
    expect(await passed((values) => Array.from(values, (_, at) => ((at % 5) - 2) * 1e30))).toEqual(last);
    await trainer.close();
    trainer.dispose();
  });
});
