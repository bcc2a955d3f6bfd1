import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import type { WeightKind } from '../engine/ops/index.js';
import type { EngineOptions } from '../engine/options.js';
import { ConfigError } from '../errors.js';
import { totalFlops } from '../models/flops.js';
import { generatorFlops } from '../models/generator/flops.js';
import { Generator } from '../models/generator/generator.js';
import { tokenizerGeometry } from '../models/geometry.js';
import { tokenizerFlops } from '../models/tokenizer/flops.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { Parameters } from '../nn/parameters.js';
import { Random } from '../random.js';
import { packWeights } from '../sample/pack-weights.js';
import { sampleCodes, sampleOptions } from '../sample/sampler.js';
import type { TokenCache } from '../tokens/codes.js';
import { GeneratorTrainer } from '../train/generator/trainer.js';

/** A workload to time, and how much work one run of it is. */
export interface Case {
  description: string;
  /** Images in one run. */
  images: number;
  /** Bytes of weights that one decoding step reads; 0 where bandwidth is not the limit. */
  bytesPerStep: number;
  /** Floating-point operations of one run. */
  operations: number;
  /** Decoding steps of one run. */
  steps: number;
  /** The work itself; the device may still be computing when it returns. */
  run(): Promise<void>;
  dispose(): void;
}

export const CASES = ['encode', 'decode', 'train', 'sample'] as const;
export type CaseName = (typeof CASES)[number];

/** A case as it is written: `sample:8:32` is 32 codes of each of 8 images. */
export interface CaseSpec {
  name: CaseName;
  /** Batch size. */
  batch: number;
  /** Codes sampled of each image; all if absent. */
  steps?: number;
}

export interface CaseOptions {
  /** The type that the generator's weights are stored in. */
  weights?: WeightKind;
  /** The precision of the engine's products. */
  precision?: EngineOptions['precision'];
}

/** Bytes of a weight by its type. */
const BYTES = { float32: 4, bf16: 2, int8: 1 };

const SEED = 0;

/** The case that a word of the command line names; undefined if it is not one. */
export function parseCase(text: string): CaseSpec | undefined {
  const [, name, batch = '1', steps] = /^([a-z]+)(?::([1-9]\d*))?(?::([1-9]\d*))?$/.exec(text) ?? [];
  if (!CASES.includes(name as CaseName) || (steps !== undefined && name !== 'sample')) return undefined;
  return {
    name: name as CaseName,
    batch: Number(batch),
    steps: steps === undefined ? undefined : Number(steps),
  };
}

/** The angle between neighbours, in radians: the golden angle, so that no two are the same. */
const TURN = 2.399963;

/**
 * Numbers in [-1, 1], computed on the device: sines of many angles. Their values do not matter, except that on a GPU speed
 * depends on how many of their bits differ.
 */
function waves(shape: number[]): tf.Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return tf
    .linspace(0, TURN * (size - 1), size)
    .sin()
    .reshape(shape);
}

/** Standard deviation of weights. */
const STD = 0.02;

/** Fills parameters with weights that are not zero, unlike a fresh output layer. */
function fill(parameters: Parameters): void {
  for (const p of parameters)
    p.value = tf.tidy(() => {
      const shape = p.shape as number[];
      return shape.length === 1 ? tf.fill(shape, 1) : waves(shape).mul(STD * Math.SQRT2);
    });
}

const integers = (size: number, below: number): Int32Array => {
  const random = Random.of(SEED, 'codes');
  return Int32Array.from({ length: size }, () => random.integer(below));
};

function generatorConfig(config: Config) {
  const { codebook_size } = config.tokenizer;
  const { prefix_tokens, grid } = tokenizerGeometry(config.tokenizer);
  return { ...config.generator, codebook_size, prefix_tokens, grid };
}

/** Number of weights in matrix products, without embeddings. */
const matrices = (parameters: Parameters) =>
  [...parameters].reduce((sum, p) => sum + (p.shape.length >= 2 && !/embed/.test(p.name) ? p.size : 0), 0);

/** Floating-point operations of a forward pass over the sequence of one image. */
const passOf = ({ geometry }: Generator) => totalFlops(generatorFlops(geometry));

function sampling(
  config: Config,
  { batch, steps }: CaseSpec,
  { weights: kind = 'float32', precision }: CaseOptions,
): Case {
  const generator = new Generator(generatorConfig(config));
  const { tokens, classes } = generator.geometry;
  if (steps !== undefined && steps > tokens)
    throw new ConfigError(
      `sample:${batch}:${steps}: an image of this config has ${tokens} codes; ask for no more`,
    );
  const count = steps ?? tokens;
  fill(generator.parameters);
  const labels = Array.from({ length: batch }, (_, i) => i % classes);
  // In bf16 each weight is rounded at the first step; later steps read the rounded copy.
  const read = kind === 'float32' && precision === 'bf16' ? 'bf16' : kind;
  const bytesPerStep = BYTES[read] * matrices(generator.parameters);
  if (kind !== 'float32') packWeights(generator, kind);
  return {
    description: `sample, batch ${batch}, ${count} of ${tokens} codes, weights in ${kind}`,
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

/** Random codes, enough for one batch, which a trainer reads like a token cache. */
function drawnCodes(
  { tokens, codebook_size, classes }: Pick<Generator['geometry'], 'tokens' | 'codebook_size' | 'classes'>,
  images: number,
): TokenCache {
  const codes = integers(images * tokens, codebook_size);
  return {
    path: 'codes in memory',
    images,
    crops: 1,
    tokens,
    classes: Int32Array.from({ length: images }, (_, i) => i % classes),
    classNames: Array.from({ length: classes }, (_, i) => String(i)),
    async read(image, _, into, offset) {
      into.set(codes.subarray(image * tokens, (image + 1) * tokens), offset);
    },
    close: async () => {},
  };
}

/** A complete training step of the recipe: dropout, class dropout, clipping, AdamW, and EMA if it is on. */
function training(config: Config, { batch }: CaseSpec): Case {
  const sizes = generatorConfig(config);
  const tokens = sizes.prefix_tokens + sizes.grid ** 2;
  const options = { ...config.generator_training, batch_size: batch, accumulation: 1 };
  const cache = drawnCodes({ ...sizes, tokens }, batch);
  const trainer = new GeneratorTrainer({ ...config, generator_training: options }, cache, sizes);
  const { generator, model, trainingParts } = trainer;
  for (const parameters of new Set([generator.parameters, model])) fill(parameters);
  trainingParts.optimizer.initialize(Random.of(SEED)); // moments, all zero
  const dropout = config.generator.dropout > 0 ? `dropout ${config.generator.dropout}` : 'no dropout';
  return {
    description: `train the generator, batch ${batch}, ${dropout}${options.checkpoint_activations ? ', checkpointing' : ''}`,
    images: batch,
    bytesPerStep: 0,
    operations: 3 * batch * passOf(generator), // the backward pass is twice the forward pass
    steps: 1,
    async run() {
      await trainer.step();
    },
    dispose: () => trainer.dispose(),
  };
}

function tokenizing(config: Config, { batch }: CaseSpec, direction: 'encode' | 'decode'): Case {
  const tokenizer = new Tokenizer(config.tokenizer, 2);
  fill(tokenizer.parameters);
  const { image_size, tokens, codebook_size } = tokenizer.geometry;
  const images = tf.tidy(() =>
    tf.keep(waves([batch, image_size, image_size, 3]).add(1).div(2)),
  ) as tf.Tensor4D;
  const codes = tf.keep(tf.tensor2d(integers(batch * tokens, codebook_size), [batch, tokens], 'int32'));
  return {
    description: `${direction}, batch ${batch}`,
    images: batch,
    bytesPerStep: 0,
    operations: batch * totalFlops(tokenizerFlops(config.tokenizer, 2), `${direction}r.`),
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

/** Makes a case with the sizes of a config and synthetic weights. */
export function openCase(spec: CaseSpec, config: Config, options: CaseOptions = {}): Case {
  if (spec.name === 'sample') return sampling(config, spec, options);
  if (spec.name === 'train') return training(config, spec);
  return tokenizing(config, spec, spec.name);
}
