import * as tf from '@tensorflow/tfjs';
import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import * as ops from '../../src/engine/ops/index.js';
import type { WasmBackend } from '../../src/engine/wasm/backend.js';
import { EngineError } from '../../src/errors.js';
import { Random } from '../../src/random.js';

const random = Random.of(1, 'wasm');
const values = (size: number) => Float32Array.from({ length: size }, () => random.normal());
const tensor = (...shape: number[]) => tf.tensor(values(shape.reduce((a, b) => a * b, 1)), shape);
const backend = () => tf.backend() as unknown as WasmBackend;

beforeAll(() => openEngine('wasm', { threads: 2 }));

it('matrix products in all orientations, with sizes that are not multiples of a tile', () => {
  for (const [m, n, k] of [
    [1, 1, 1],
    [1, 33, 7],
    [5, 7, 9],
    [6, 8, 16],
    [7, 9, 300],
    [67, 130, 33],
    [130, 5, 270],
  ]) {
    for (const [transposeA, transposeB] of [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ]) {
      const a = transposeA ? tensor(k, m) : tensor(m, k);
      const b = transposeB ? tensor(n, k) : tensor(k, n);
      const [x, y] = [a.dataSync(), b.dataSync()];
      const actual = tf.matMul(a as tf.Tensor2D, b as tf.Tensor2D, transposeA, transposeB).dataSync();
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let t = 0; t < k; t++)
            sum += x[transposeA ? t * m + i : i * k + t] * y[transposeB ? j * k + t : t * n + j];
          expect(Math.abs(actual[i * n + j] - sum)).toBeLessThan(1e-5 * Math.sqrt(k) * 4);
        }
    }
  }
});

it('exponentials to about one rounding, from the smallest normal to the largest result', () => {
  const least = Math.log(2 ** -126);
  const most = Math.log(2 ** 128);
  const x = Float32Array.from({ length: 100_000 }, (_, i) => least + ((most - least) * i) / 100_000);
  const y = tf.exp(tf.tensor1d(x)).dataSync();
  // The last power of two covers a wider range of remainders.
  const error = (i: number) => Math.abs(y[i] / Math.exp(x[i]) - 1) / (x[i] > 127.5 * Math.LN2 ? 4e-7 : 1e-7);
  expect(x.reduce((worst, _, i) => Math.max(worst, error(i)), 0)).toBeLessThan(1);
});

it('results do not depend on the number of threads', () => {
  const [x, weight, bias] = [tensor(4, 33, 48), tensor(96, 48), tensor(96)];
  const [q, k, v] = [tensor(4, 33, 3, 20), tensor(4, 33, 3, 20), tensor(4, 33, 3, 20)] as tf.Tensor4D[];
  const [image, filter] = [tensor(3, 17, 19, 16), tensor(3, 3, 16, 8)] as tf.Tensor4D[];
  const [dy, scale] = [tensor(4, 33, 48), tensor(48)];
  const all = () =>
    [
      ops.linear(x, weight, bias),
      ...tf.grads((a, w) => ops.linear(a, w, bias))([x, weight]),
      ...tf.grads((a, s) => ops.layerNorm(a, s, s))([x, scale], dy),
      ops.attention(q, k, v, { causal: true }),
      ...tf.grads((a, b, c) => ops.attention(a as tf.Tensor4D, b as tf.Tensor4D, c as tf.Tensor4D))([
        q,
        k,
        v,
      ]),
      ...tf.grads((a, f) => tf.conv2d(a as tf.Tensor4D, f as tf.Tensor4D, 2, 'same'))([image, filter]),
      ops.gelu(x),
      ops.embedding(weight, tf.tensor1d([5, 1, 95, 5], 'int32')),
      tf.maxPool(image, 3, 2, 'same'),
      tf.avgPool(image, 3, 2, 'same'),
      tf.maximum(x, 0.5),
      x.argMax(-1),
      x.transpose([2, 0, 1]),
      x.sum(0),
    ].map((result) => result.dataSync());
  const pool = backend().pool as { threads: number };
  expect(pool.threads).toBe(2);
  const onTwo = all();
  pool.threads = 1;
  try {
    expect(all()).toEqual(onTwo);
  } finally {
    pool.threads = 2;
  }
});

it('disposing of tensors frees their memory', () => {
  // 12 GiB in total, three times the available memory.
  for (let i = 0; i < 48; i++)
    tf.tidy(() =>
      tf
        .fill([2 ** 26], i)
        .add(1)
        .dispose(),
    );
  expect(tf.fill([4], 2).dataSync()).toEqual(Float32Array.of(2, 2, 2, 2));
});

it('running out of memory is an error that says what to lower', () => {
  const before = tf.memory().numTensors;
  const column = tf.ones([40_000, 1]);
  const row = tf.ones([1, 40_000]);
  // 6 GiB, which would wrap around to 2 in 32-bit sizes.
  expect(() => tf.matMul(column, row)).toThrow(EngineError);
  expect(() => tf.matMul(column, row)).toThrow(/out of memory: 6104 MiB more than .* lower the batch size/);
  tf.dispose([column, row]);
  expect(tf.memory().numTensors).toBe(before);
  expect(tf.ones([3]).sum().dataSync()[0]).toBe(3);
});

it('a failing thread is an error and does not hang', () => {
  const { pool } = backend();
  // A matrix outside the memory: both parts trap, the one of this thread first.
  expect(() => pool.run('gelu', 1e9, 2 ** 20, 2 ** 32 - 64, 2 ** 32 - 64)).toThrow();
});
