import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import { linear } from '../../src/engine/ops/index.js';
import { canRun, device, openTested } from '../support/engines.js';
import { openGenerator } from './generator.js';
import { relativeError } from './golden.js';
import { openTokenizer } from './tokenizer.js';

// Products in bfloat16 have 8 bits of mantissa: close to the reference, but visibly not float32.
const LARGEST = 3e-2;
const SMALLEST = 1e-4;

function expectHalf(name: string, actual: tf.Tensor, expected: ArrayLike<number>) {
  const error = relativeError(actual.dataSync(), expected);
  expect(error, name).toBeLessThan(LARGEST);
  expect(error, name).toBeGreaterThan(SMALLEST);
}

const PROCESSORS: [string, boolean][] = [
  ['bf16 on libtorch', false],
  ...(device === 'cpu'
    ? [['bf16 on a processor without instructions for it', true] as [string, boolean]]
    : []),
];

describe.skipIf(!canRun('libtorch')).each(PROCESSORS)('%s', (_, plain) => {
  beforeAll(async () => {
    await openTested('libtorch', { precision: 'bf16' });
    const backend = tf.backend() as LibtorchBackend;
    if (plain) vi.spyOn(backend, 'multipliesHalf', 'get').mockReturnValue(false);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    await openTested('libtorch');
  });

  it('generator: logits near the reference, gradients in its direction', async () => {
    const { golden, generator, condition, codes } = await openGenerator();
    const logits = generator.forward(condition, codes);
    expectHalf('logits', logits, golden.values('logits'));
    const trained = [...generator.parameters];
    const loss = () => generator.loss(generator.forward(condition, codes), codes);
    const gradients = tf.grads(loss)(trained.map((p) => p.value));
    let [along, own, reference] = [0, 0, 0];
    trained.forEach((p, i) => {
      const [a, b] = [gradients[i].dataSync(), golden.values(`grad.${p.name}`)];
      for (let j = 0; j < b.length; j++) {
        along += a[j] * b[j];
        own += a[j] ** 2;
        reference += b[j] ** 2;
      }
    });
    expect(along / Math.sqrt(own * reference)).toBeGreaterThan(0.999);
  });

  it('tokenizer: latents near the reference', async () => {
    const { golden, tokenizer, images } = await openTokenizer(1);
    expectHalf('latents', tokenizer.encode(images).transpose([0, 2, 1]), golden.values('enc.z'));
  });

  it('long sums of products stay in float32', () => {
    const [rows, width] = [2048, 16];
    const [x, dy] = [1, 2].map((seed) => tf.randomNormal<tf.Rank.R2>([rows, width], 0, 1, 'float32', seed));
    const weight = tf.randomNormal<tf.Rank.R2>([width, width], 0, 1, 'float32', 3);
    const found = tf.grad((w: tf.Tensor) => linear(x, w).mul(dy).sum())(weight);
    const exact = tf.matMul(dy, x, true, false); // tfjs's own product never uses bf16
    expect(relativeError(found.dataSync(), exact.dataSync())).toBeLessThan(0.01);
  });

  it('some training steps follow those in float32', async () => {
    const losses = async (precision: 'float32' | 'bf16') => {
      await openTested('libtorch', { precision });
      const { generator, condition, codes } = await openGenerator();
      const found: number[] = [];
      for (let step = 0; step < 5; step++) {
        const loss = () => generator.loss(generator.forward(condition, codes), codes);
        const { value, grads } = tf.valueAndGrads(loss)([...generator.parameters].map((p) => p.value));
        found.push(value.dataSync()[0]);
        [...generator.parameters].forEach((p, i) => {
          p.value = p.value.sub(grads[i].mul(0.5));
        });
      }
      generator.dispose();
      return found;
    };
    const exact = await losses('float32');
    const half = await losses('bf16');
    expect(exact[4]).toBeLessThan(exact[0]);
    half.forEach((loss, i) => {
      expect(Math.abs(loss / exact[i] - 1)).toBeLessThan(0.02);
    });
  });
});
