import { writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { saveTokenizer } from '../../src/checkpoint/tokenizer.js';
import { loadConfig } from '../../src/config/load.js';
import { CheckpointError, Interrupted, OutputError, TrainingError } from '../../src/errors.js';
import type { Job } from '../../src/job/job.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';
import { tokenizeDataset } from '../../src/tokens/tokenize-dataset.js';
import { trainFeatures } from '../../src/train/features/train.js';
import { trainGenerator } from '../../src/train/generator/train.js';
import type { Runner } from '../../src/train/run-training.js';
import { trainTokenizer } from '../../src/train/tokenizer/train.js';
import { TINY } from '../e2e/alitok.js';
import { describeEngines } from '../support/engines.js';
import { quietJob } from '../support/job.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ends-'));
  await drawPictures({ folder, size: 16, perClass: 1, seed: 1, split: 'train' });
});
afterAll(() => rm(folder, { recursive: true }));

const at = (...names: string[]) => join(folder, ...names);
const read = (overrides: readonly string[] = []) =>
  loadConfig(TINY, [`data.train=${at('train')}`, 'generator.classes=12', ...overrides]);

type Train = (run: string, job: Job, options?: { overrides?: string[]; resume?: boolean }) => Promise<void>;

/** For each kind of run: how to train it, its folder, and an override that makes it diverge. */
const KINDS: Record<string, { train: Train; folder: string; diverge: string }> = {
  'tokenizer, stage 1': {
    train: (run, job, { overrides, resume = false } = {}) =>
      trainTokenizer({ config: read(overrides), run, stages: [1], resume }, job),
    folder: 'stage1',
    diverge: 'tokenizer_training.stage1.phases.0.lr=1.0e+38',
  },
  'tokenizer, stage 2': {
    train: (run, job, { overrides, resume = false } = {}) =>
      trainTokenizer({ config: read(overrides), run, stages: [2], from: at('made/stage1'), resume }, job),
    folder: 'stage2',
    diverge: 'tokenizer_training.stage2.phases.0.lr=1.0e+38',
  },
  generator: {
    train: (run, job, { overrides, resume = false } = {}) => {
      const inputs = { tokens: at('tokens.safetensors'), tokenizer: at('made/stage1') };
      return trainGenerator({ config: read(overrides), run, ...inputs, resume }, job);
    },
    folder: '',
    diverge: 'generator_training.lr=1.0e+38',
  },
  adapters: {
    train: (run, job, { overrides = [], resume = false } = {}) => {
      const lora = ['generator_training.lora={rank: 2, merge: false}', 'generator_training.ema=true'];
      const inputs = { tokens: at('tokens.safetensors'), init: { path: at('generator') } };
      return trainGenerator({ config: read([...lora, ...overrides]), run, ...inputs, resume }, job);
    },
    folder: '',
    diverge: 'generator_training.lr=1.0e+38',
  },
  features: {
    train: (run, job, { overrides, resume = false } = {}) =>
      trainFeatures({ config: read(overrides), run, resume }, job),
    folder: '',
    diverge: 'features.lr=1.0e+38',
  },
};

describeEngines('a run leaves no tensor behind', (engine) => {
  beforeAll(async () => {
    const job = quietJob(engine);
    await rm(at('made'), { recursive: true, force: true });
    await trainTokenizer({ config: read(), run: at('made'), stages: [1], resume: false }, job);
    const images = {
      tokenizer: at('made/stage1'),
      folder: at('train'),
      crops: 'flip',
      batchSize: 8,
    } as const;
    const tokens = at('tokens.safetensors');
    await tokenizeDataset({ ...images, out: tokens }, job);
    await rm(at('generator'), { recursive: true, force: true });
    await trainGenerator({ config: read(), run: at('generator'), tokens, resume: false }, job);
  });

  for (const [kind, { train, folder: own, diverge }] of Object.entries(KINDS))
    it(kind, async () => {
      const before = tf.memory().numTensors;
      const leavesNothing = (end: string) => expect(tf.memory().numTensors, end).toBe(before);
      const run = await mkdtemp(at('run-'));
      await expect(train(run, quietJob(engine, 2))).rejects.toThrow(Interrupted);
      leavesNothing('interrupted');
      await train(run, quietJob(engine), { resume: true });
      leavesNothing('finished');

      const refused = await mkdtemp(at('run-'));
      await expect(train(refused, quietJob(engine), { resume: true })).rejects.toThrow(CheckpointError);
      leavesNothing('refused');

      const diverging = await mkdtemp(at('run-'));
      const overrides = [diverge];
      await expect(train(diverging, quietJob(engine), { overrides })).rejects.toThrow(TrainingError);
      leavesNothing('diverged');

      const unwritable = await mkdtemp(at('run-'));
      const checkpoints = join(unwritable, own, 'checkpoints');
      const block = () => writeFileSync(checkpoints, 'no folder');
      const job = quietJob(engine);
      const reporter = { ...job.reporter, progress: () => ({ update: block, stop() {} }) };
      const failing = expect(train(unwritable, { ...job, reporter })).rejects;
      await failing.toThrow(OutputError);
      leavesNothing('a checkpoint that cannot be written');
      await expect(train(unwritable, job, { resume: true })).rejects.toThrow(
        `${checkpoints}, the folder of checkpoints, is not a folder; move it away`,
      );
      leavesNothing('checkpoints that cannot be read');
      expect(await readFile(checkpoints, 'utf8')).toBe('no folder');
    });

  it('initial weights that cannot be read', async () => {
    const job = quietJob(engine);
    const config = read();
    const init = at('whole.safetensors');
    const stage2 = {
      config,
      run: at('damaged'),
      stages: [2] as const,
      from: at('made/stage1'),
      resume: false,
    };
    const tokenizer = new Tokenizer(config.tokenizer, 2);
    tokenizer.parameters.initialize(Random.of(0, 'whole'));
    await saveTokenizer(init, tokenizer);
    tokenizer.parameters.dispose();
    const before = tf.memory().numTensors;
    // The file is damaged after it was checked.
    const run: Runner = async (_, { initialize }) => {
      await truncate(init, 4000);
      await initialize();
    };
    await expect(trainTokenizer({ ...stage2, init }, job, run)).rejects.toThrow(CheckpointError);
    expect(tf.memory().numTensors).toBe(before);
  });
});
