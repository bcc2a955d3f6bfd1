import * as tf from '@tensorflow/tfjs';
import { Generator } from '../models/generator/generator.js';
import type { Stage } from '../models/geometry.js';
import { auxFactor, auxTarget, mse } from '../models/tokenizer/losses.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { Parameters } from '../nn/parameters.js';
import { fillByFormula, uniformNumbers } from './formula.js';
import { GOLDEN_VALUES } from './golden-values.js';

/** Small, but with all components of the models; heads have 16 channels, as fast kernels need them. */
const TOKENIZER = {
  image_size: 32,
  patch_size: 8,
  codebook_size: 32,
  token_size: 8,
  encoder: { width: 64, layers: 2, heads: 4 },
  decoder: { width: 64, layers: 2, heads: 4, class_tokens: 4 },
  l2_normalize: false,
};
const GENERATOR = {
  width: 64,
  layers: 2,
  heads: 4,
  classes: 3,
  codebook_size: 48,
  prefix_tokens: 5,
  grid: 4,
};
const BATCH = 2;
const WEIGHTS_SEED = 100;
const IMAGES_SEED = 2;
const PRODUCT_SEED = 1;

/** Relative errors up to these are rounding; larger ones are defects. */
const TOLERANCE = { value: 1e-4, gradient: 1e-3 };

/** How far the results of an engine are from the expected values. */
export interface SelfTest {
  /** The quantity with the largest error relative to its tolerance. */
  worst: string;
  /** Its relative error. */
  error: number;
  passed: boolean;
  /** Number of quantities compared. */
  compared: number;
}

type Values = Record<string, tf.Tensor>;

/** A loss with its gradients by all parameters, and the other values that `forward` gives. */
function withGradients(parameters: Parameters, forward: () => Values & { loss: tf.Scalar }): Values {
  const trained = [...parameters].filter((p) => !p.buffer);
  let values: Values = {};
  const gradients = tf.grads(() => {
    values = forward();
    for (const value of Object.values(values)) tf.keep(value);
    return values.loss;
  })(trained.map((p) => p.value));
  return { ...values, ...Object.fromEntries(trained.map((p, i) => [`gradient of ${p.name}`, gradients[i]])) };
}

function tokenizerValues(stage: Stage): Values {
  const tokenizer = new Tokenizer(TOKENIZER, stage);
  fillByFormula(tokenizer.parameters, WEIGHTS_SEED);
  const { image_size: size, patch_size, prefix_tokens, tokens } = tokenizer.geometry;
  const pixels = uniformNumbers(BATCH * size * size * 3, IMAGES_SEED).map((u) => (u + 1) / 2);
  const x = tf.tensor4d(Float32Array.from(pixels), [BATCH, size, size, 3]);
  const forward = () => {
    const z = tokenizer.encode(x);
    const { indices, loss: quantizer, tokens: quantized } = tokenizer.quantizer.quantize(z);
    return {
      z,
      codes: indices.reshape([BATCH, tokens]),
      quantizer: quantizer!,
      ...tokenizer.decode(quantized),
    };
  };
  if (stage === 2) {
    const { z, codes, image } = forward();
    tokenizer.parameters.dispose();
    return { z, codes, image };
  }
  const values = withGradients(tokenizer.parameters, () => {
    const { z, codes, image, aux, quantizer } = forward();
    const auxLoss = mse(auxTarget(x, patch_size, prefix_tokens), aux!).mul(auxFactor(tokenizer.geometry, 10));
    return { z, codes, image, aux: aux!, loss: mse(x, image).add(auxLoss).add(quantizer) as tf.Scalar };
  });
  tokenizer.parameters.dispose();
  return values;
}

function generatorValues(): Values {
  const generator = new Generator(GENERATOR);
  fillByFormula(generator.parameters, WEIGHTS_SEED);
  const { tokens, codebook_size } = generator.geometry;
  const ids = Int32Array.from({ length: BATCH * tokens }, (_, i) => (7 * i) % codebook_size);
  const codes = tf.tensor2d(ids, [BATCH, tokens], 'int32');
  const conditions = [1, generator.noClass].map((c) => generator.conditionOf(c));
  const values = withGradients(generator.parameters, () => {
    const logits = generator.forward(tf.tensor1d(conditions, 'int32'), codes);
    return { logits, loss: generator.loss(logits, codes) };
  });
  generator.dispose();
  return values;
}

/** The larger error, relative to the norm, of a tensor's norm and of its product with numbers from the formula. */
function errorOf(name: string, values: ArrayLike<number>): number {
  const [norm, product] = GOLDEN_VALUES[name];
  const factors = uniformNumbers(values.length, PRODUCT_SEED);
  let [squares, sum] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    squares += values[i] ** 2;
    sum += values[i] * factors[i];
  }
  return Math.max(Math.abs(Math.sqrt(squares) - norm), Math.abs(sum - product)) / Math.max(norm, 1e-12);
}

/**
 * Runs a small tokenizer of each stage and a small generator, forward and, if they are trained, backward, on the engine
 * that is open with float32 products. Compares the results with those of PyTorch (golden-values.ts). Takes a second or two.
 */
export async function selfTest(): Promise<SelfTest> {
  const parts: [string, () => Values][] = [
    ['stage 1', () => tokenizerValues(1)],
    ['stage 2', () => tokenizerValues(2)],
    ['generator', generatorValues],
  ];
  const result: SelfTest = { worst: '', error: 0, passed: true, compared: 0 };
  let worst = -1;
  for (const [part, compute] of parts) {
    tf.engine().startScope();
    try {
      for (const [name, tensor] of Object.entries(compute())) {
        const key = `${part}: ${name}`;
        if (!(key in GOLDEN_VALUES)) continue;
        const error = errorOf(key, await tensor.data());
        tensor.dispose();
        const share = error / (name.startsWith('gradient') ? TOLERANCE.gradient : TOLERANCE.value);
        result.compared += 1;
        if (!(share <= worst)) Object.assign(result, { worst: key, error });
        worst = Number.isNaN(share) ? Number.POSITIVE_INFINITY : Math.max(worst, share);
      }
    } finally {
      tf.engine().endScope();
    }
  }
  result.passed = worst <= 1 && result.compared === Object.keys(GOLDEN_VALUES).length;
  return result;
}
