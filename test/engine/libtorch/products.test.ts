import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { openCase } from '../../../src/bench/cases.js';
import { parseConfig } from '../../../src/config/schema.js';
import { openEngine } from '../../../src/engine/index.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import * as ops from '../../../src/engine/ops/index.js';
import { inFloat32 } from '../../../src/engine/ops/precision.js';
import { type Observed, pretendCuda } from '../../aten/pretend-cuda.js';
import { canRun } from '../../support/engines.js';

// Counts how often numbers are rounded for bf16 products, and checks what must never be rounded and what is exact under --tf32.

const HALF = 15;
const CONFIG = parseConfig(
  {
    tokenizer: { image_size: 32, patch_size: 16, codebook_size: 16 },
    generator: { width: 32, layers: 2, heads: 2, classes: 3 },
  },
  'test',
);
const TOKENS = 17 + 4;
/** Linear layers of the generator: five in each block, and the output. */
const LAYERS = 2 * 5 + 1;

describe.skipIf(!canRun('libtorch'))('products on a CUDA device', () => {
  let seen: Observed;
  let backend: LibtorchBackend;
  const roundings: number[] = [];
  /** Dtypes of the tensors created with zeros. */
  const made: unknown[] = [];
  const exact: string[] = [];
  const rounded: string[] = [];

  /** Opens the engine, and records from then on what is rounded to bf16, and what runs with TF32 on and off. */
  const open = async (options: { precision?: 'float32' | 'bf16'; tf32?: boolean }) => {
    vi.restoreAllMocks();
    await openEngine('libtorch', { device: 'cpu', ...options });
    seen = pretendCuda();
    backend = tf.backend() as LibtorchBackend;
    for (const list of [roundings, made, exact, rounded]) list.length = 0;
    const call = backend.call.bind(backend);
    vi.spyOn(backend, 'call').mockImplementation((name, ...args) => {
      if (name === 'zeros') made.push(args[1]);
      if (name === 'to.dtype' && args[1] === HALF) roundings.push(args[0] as number);
      (backend.tf32 ? rounded : exact).push(name);
      return call(name, ...args);
    });
  };
  beforeEach(() => open({ precision: 'bf16' }));
  afterAll(async () => {
    vi.restoreAllMocks();
    await openEngine('libtorch', { device: 'cpu' });
  });

  const draw = (shape: number[], seed: number) => tf.randomNormal(shape, 0, 1, 'float32', seed);

  it('a layer rounds input, weight and bias once, and its gradient rounds only dy', () => {
    const [x, weight, bias] = [draw([2, 3, 16], 1), draw([8, 16], 2), draw([8], 3)];
    const loss = (...given: tf.Tensor[]) => ops.linear(given[0], given[1], given[2]).square().sum();
    tf.grads(loss)([x, weight, bias]);
    expect(roundings).toHaveLength(3 + 1);
  });

  it('gradients by weights are float32 directly if products can return it, otherwise converted', async () => {
    const gradient = () => {
      const [x, weight] = [draw([64, 16], 1), draw([8, 16], 2)];
      const [, dweight] = tf.grads((x, weight) => ops.linear(x, weight).square().sum())([x, weight]);
      return [...dweight.dataSync()];
    };
    const widened = gradient();
    expect([seen.calls.get('mm.dtype'), seen.calls.get('mm')]).toEqual([1 + 1, 1]); // tried once
    await open({ precision: 'bf16' });
    const call = backend.native.call;
    const find = backend.native.find('aten::mm', 'dtype')!;
    backend.native.call = (operator, ...args) => {
      if (operator === find) throw new Error('CUBLAS_STATUS_NOT_SUPPORTED');
      return call(operator, ...args);
    };
    const converted = gradient();
    expect([seen.calls.get('mm.dtype'), seen.calls.get('mm')]).toEqual([undefined, 2]);
    const largest = Math.max(...widened.map(Math.abs));
    converted.forEach((x, i) => {
      expect(Math.abs(x - widened[i]) / largest).toBeLessThan(2 ** -8);
    });
    expect(converted).not.toEqual(widened); // rounded to bfloat16 in between
  });

  it('two layers with the same input round it once', () => {
    const [x, first, second] = [draw([2, 16], 1), draw([8, 16], 2), draw([8, 16], 3)];
    ops.linear(x, first);
    ops.linear(x, second);
    expect(roundings).toHaveLength(3);
  });

  it('attention rounds queries, keys and values once, its gradient too', () => {
    const heads = [1, 2, 3].map((seed) => draw([2, 6, 2, 16], seed));
    const loss = (...x: tf.Tensor[]) => {
      const [q, k, v] = x as tf.Tensor4D[];
      return ops.attention(q, k, v, { causal: true }).square().sum();
    };
    tf.grads(loss)(heads);
    expect(roundings).toHaveLength(3 + 1);
  });

  it('a rounded copy is freed with its tensor', () => {
    const before = backend.native.count();
    tf.tidy(() => void ops.linear(draw([2, 16], 1), draw([8, 16], 2), draw([8], 3)));
    expect(backend.native.count()).toBe(before);
  });

  it('tensors that AdamW changed are rounded again', () => {
    const [x, start] = [draw([2, 16], 1), draw([8, 16], 2)];
    const parameter = start.mul(1); // owned by this engine alone, so it is changed in place
    const first = ops.linear(x, parameter).dataSync();
    const gradient = tf.onesLike(parameter);
    const state = { parameter, gradient, m: tf.zerosLike(parameter), v: tf.zerosLike(parameter) };
    const attributes = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, step: 1, gradientScale: 1 };
    const [[next]] = ops.adamW([state], { ...attributes, lr: 0.5 });
    const second = ops.linear(x, next).dataSync();
    const expected = ops.linear(x, start.sub(0.5)).dataSync();
    expect([...second]).not.toEqual([...first]);
    second.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i], 1);
    });
  });

  it('writes to a tensor that attention has rounded take effect', () => {
    const cache = tf.variable(draw([1, 4, 1, 16], 1), false) as tf.Variable<tf.Rank.R4>;
    const q = draw([1, 1, 1, 16], 2) as tf.Tensor4D;
    const attend = () => [...ops.attention(q, cache, cache, { keyLength: 4 }).dataSync()];
    const before = attend();
    ops.cacheWrite(cache, draw([1, 1, 1, 16], 3) as tf.Tensor4D, 2);
    expect(attend()).not.toEqual(before);
  });

  it('caches hold rounded numbers, and no decoding step rounds them or a weight again', async () => {
    ops.newCache([1, 4, 2, 16]);
    expect(made).toEqual([HALF]);
    const sampling = openCase({ name: 'sample', batch: 2 }, CONFIG, { precision: 'bf16' });
    await sampling.run();
    roundings.length = 0;
    await sampling.run();
    // Per step: the inputs of the layers (w1 and w3 share theirs), and the queries, keys and values of each block.
    const inputs = LAYERS - 2;
    expect(roundings.length).toBeLessThanOrEqual(TOKENS * (inputs + 2 * 3));
    expect(seen.waits).toEqual([]);
    sampling.dispose();
  });

  it('under --tf32, the nearest code and products that require float32 are exact, others are not', async () => {
    await open({ tf32: true });
    ops.linear(draw([2, 16], 1), draw([8, 16], 2));
    expect(rounded).toContain('linear');
    for (const list of [exact, rounded]) list.length = 0;
    ops.nearestCode(draw([5, 4], 1) as tf.Tensor2D, draw([6, 4], 2) as tf.Tensor2D);
    expect(exact).toContain('addmm');
    inFloat32(() =>
      tf.conv2d(draw([1, 8, 8, 3], 1) as tf.Tensor4D, draw([3, 3, 3, 4], 2) as tf.Tensor4D, 1, 'same'),
    );
    expect(exact).toContain('convolution');
    expect(rounded.filter((name) => /addmm|convolution/.test(name))).toEqual([]);
    ops.linear(draw([2, 16], 1), draw([8, 16], 2));
    expect(rounded).toContain('linear'); // switched on again
    expect(() =>
      inFloat32(() => {
        throw new Error('within');
      }),
    ).toThrow('within');
    expect(backend.tf32).toBe(true);
  });
});
