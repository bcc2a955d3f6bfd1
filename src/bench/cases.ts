import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import type { WeightKind } from '../engine/ops/index.js';
import { Generator, hiddenWidth } from '../models/generator.js';
import { tokenizerGeometry } from '../models/geometry.js';
import { generatorOperations, tokenizerOperations, totalOperations } from '../models/operations.js';
import { Tokenizer } from '../models/tokenizer.js';
import { AdamW } from '../nn/adamw.js';
import { normal } from '../nn/initializers.js';
import type { Parameters } from '../nn/parameters.js';
import { Random } from '../random.js';
import { packWeights } from '../sample/pack-weights.js';
import { sampleCodes, sampleOptions } from '../sample/sampler.js';
import { finiteNorm, sumGradients, update } from '../train/optimize.js';

/** What is timed: a name, and how much one run of it does. */
export interface Case {
  name: string;
  /** Images that one run handles. */
  images: number;
  /** Bytes of weights that one decoding step must read; 0 where that is not what limits. */
  bytesPerStep: number;
  /** Multiplications and additions of one run. */
  operations: number;
  /** Steps of one run, for bytesPerStep. */
  steps: number;
  /** What is timed; the device may still be at work on it when it returns. */
  run(): Promise<void>;
  dispose(): void;
}

export const CASES = ['encode', 'decode', 'train', 'sample'] as const;
export type CaseName = (typeof CASES)[number];

export interface CaseOptions {
  batch: number;
  /** Codes sampled of each image. */
  steps?: number;
  /** What the generator samples with. */
  weights?: WeightKind;
}

/** Bytes of a weight. */
const BYTES = { float32: 4, bf16: 2, int8: 1 };

const SEED = 0;

/** Random weights, for time does not depend on them; none is zero, as a fresh output layer would be. */
function fill(parameters: Parameters): void {
  const random = Random.of(SEED, 'bench');
  const std = normal(0.02);
  for (const p of parameters)
    p.value = p.shape.length === 1 ? tf.ones(p.shape as number[]) : std(p.shape, random.fork(p.name));
}

const integers = (size: number, below: number): Int32Array => {
  const random = Random.of(SEED, 'codes');
  return Int32Array.from({ length: size }, () => random.integer(below));
};

function generatorOf(config: Config): Generator {
  const { codebook_size } = config.tokenizer;
  const { prefix_tokens, grid } = tokenizerGeometry(config.tokenizer);
  const generator = new Generator({ ...config.generator, codebook_size, prefix_tokens, grid });
  fill(generator.parameters);
  return generator;
}

/** Weights that a pass multiplies by, without embeddings. */
const matrices = (parameters: Parameters) =>
  [...parameters].reduce((sum, p) => sum + (p.shape.length >= 2 && !/embed/.test(p.name) ? p.size : 0), 0);

/** Multiplications and additions of a pass over the sequence of one image. */
const passOf = ({ geometry }: Generator) =>
  totalOperations(generatorOperations(geometry, hiddenWidth(geometry.width)));

function sampling(config: Config, { batch, steps, weights: kind = 'float32' }: CaseOptions): Case {
  const generator = generatorOf(config);
  const { tokens, classes } = generator.geometry;
  const count = steps ?? tokens;
  const labels = Array.from({ length: batch }, (_, i) => i % classes);
  const bytesPerStep = BYTES[kind] * matrices(generator.parameters);
  if (kind !== 'float32') packWeights(generator, kind);
  return {
    name: `sample, batch ${batch}, ${count} of ${tokens} codes, weights in ${kind}`,
    images: batch,
    bytesPerStep,
    operations: 2 * batch * (count / (tokens + 1)) * passOf(generator), // with the class and without
    steps: count,
    async run() {
      const randoms = labels.map((_, i) => Random.of(SEED, `image ${i}`));
      const codes = await sampleCodes(generator, labels, sampleOptions(config.sample), randoms, {
        steps: count,
      });
      codes.dispose();
    },
    dispose: () => generator.dispose(),
  };
}

function training(config: Config, { batch }: CaseOptions): Case {
  const generator = generatorOf(config);
  const trained = [...generator.parameters];
  const optimizer = new AdamW(trained, config.generator_training);
  optimizer.initialize();
  const { tokens, codebook_size } = generator.geometry;
  const codes = tf.keep(tf.tensor2d(integers(batch * tokens, codebook_size), [batch, tokens], 'int32'));
  const conditions = tf.keep(tf.fill([batch], codebook_size + 1, 'int32')) as tf.Tensor1D;
  const pass = { recompute: config.generator_training.checkpoint_activations };
  return {
    name: `train the generator, batch ${batch}${pass.recompute ? ', checkpointing' : ''}`,
    images: batch,
    bytesPerStep: 0,
    operations: 3 * batch * passOf(generator), // the backward pass is twice the forward pass
    steps: 1,
    async run() {
      const { gradients, metrics } = await sumGradients(trained, 1, () => ({
        loss: generator.loss(generator.forward(conditions, codes, pass), codes),
      }));
      const norm = finiteNorm(gradients, 1, { step: 1, lr: 1e-4, metrics, batch: {} });
      await update(optimizer, gradients, 1e-4, { norm, accumulation: 1, clip_norm: 1 });
    },
    dispose() {
      tf.dispose([codes, conditions]);
      optimizer.state.dispose();
      generator.dispose();
    },
  };
}

function tokenizing(config: Config, { batch }: CaseOptions, direction: 'encode' | 'decode'): Case {
  const tokenizer = new Tokenizer(config.tokenizer, 2);
  fill(tokenizer.parameters);
  const { image_size, tokens, codebook_size } = tokenizer.geometry;
  const images = tf.keep(
    tf.randomUniform([batch, image_size, image_size, 3], 0, 1, 'float32', SEED),
  ) as tf.Tensor4D;
  const codes = tf.keep(tf.tensor2d(integers(batch * tokens, codebook_size), [batch, tokens], 'int32'));
  return {
    name: `${direction}, batch ${batch}`,
    images: batch,
    bytesPerStep: 0,
    operations: batch * totalOperations(tokenizerOperations(config.tokenizer, 2), `${direction}r.`),
    steps: 1,
    async run() {
      const result = tf.tidy(() =>
        direction === 'encode' ? tokenizer.encode(images) : tokenizer.detokenize(codes),
      );
      result.dispose();
    },
    dispose() {
      tf.dispose([images, codes]);
      tokenizer.parameters.dispose();
    },
  };
}

/** Makes a case with a config's sizes and random weights. */
export function openCase(name: CaseName, config: Config, options: CaseOptions): Case {
  if (name === 'sample') return sampling(config, options);
  if (name === 'train') return training(config, options);
  return tokenizing(config, options, name);
}
