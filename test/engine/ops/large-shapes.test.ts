import * as tf from '@tensorflow/tfjs';
import { describe, expect, it, vi } from 'vitest';
import type { EngineName } from '../../../src/engine/index.js';
import * as ops from '../../../src/engine/ops/index.js';
import { Random } from '../../../src/random.js';
import { describeEngines, device, openTested } from '../../support/engines.js';

// Fast kernels work in blocks; these shapes need several blocks, with partial ones at the end.

function draw(name: string, shape: number[]): tf.Tensor {
  const random = Random.of(3, name);
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal());
  return tf.tensor(values, shape);
}

type Function = (...inputs: tf.Tensor[]) => tf.Tensor;

/** f's value and the gradients of Σ f·weights by each input, as plain arrays. */
function valueAndGradients(f: Function, shapes: number[][]): Float32Array[] {
  return tf.tidy(() => {
    const inputs = shapes.map((shape, i) => draw(`input ${i}`, shape));
    const value = f(...inputs);
    const weights = draw('weights', value.shape);
    const gradients = tf.grads((...x: tf.Tensor[]) =>
      f(...x)
        .mul(weights)
        .sum(),
    )(inputs);
    return [value, ...gradients].map((tensor) => tensor.dataSync() as Float32Array);
  });
}

/** Results of tfjs's own kernels, by test name: the same for every engine. */
const references = new Map<string, Float32Array[]>();

async function expectAgreement(engine: EngineName, f: Function, shapes: number[][]) {
  const actual = valueAndGradients(f, shapes);
  const test = expect.getState().currentTestName!.replace(` on ${engine}`, '');
  if (!references.has(test)) {
    await openTested('cpu');
    references.set(test, valueAndGradients(f, shapes));
    await openTested(engine);
  }
  const expected = references.get(test)!;
  expected.forEach((values, i) => {
    const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const error = actual[i].reduce((a, b, j) => Math.max(a, Math.abs(b - values[j])), 0);
    expect(error / largest, `result ${i}`).toBeLessThan(1e-5);
  });
}

describeEngines('large shapes', (engine) => {
  it.each([
    [1, 16, 5],
    [2, 64, 33],
    [7, 48, 70],
    [31, 272, 66],
    [33, 17, 31],
    [200, 530, 600],
    [790, 400, 70],
  ])('linear of %i rows, %i to %i', async (rows, inputs, outputs) => {
    const linear: Function = (x, weight, bias) => ops.linear(x, weight, bias);
    await expectAgreement(engine, linear, [[rows, inputs], [outputs, inputs], [outputs]]);
  });

  it.each([
    { queries: 70, keys: 70, width: 16, causal: true, dropout: 0 },
    { queries: 70, keys: 70, width: 48, causal: true, dropout: 0.2 },
    { queries: 37, keys: 65, width: 64, causal: true, dropout: 0 },
    { queries: 41, keys: 33, width: 80, causal: false, dropout: 0.1 },
    { queries: 13, keys: 13, width: 12, causal: true, dropout: 0.3 },
  ])(
    'attention of $queries queries and $keys keys, heads $width wide, causal $causal, dropout $dropout',
    async ({ queries, keys, width, ...options }) => {
      const attention: Function = (...x) =>
        ops.attention(...(x as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D]), { ...options, seed: 5 });
      await expectAgreement(engine, attention, [
        [2, queries, 3, width],
        [2, keys, 3, width],
        [2, keys, 3, width],
      ]);
    },
  );

  it('attention over the parts of one projection, which lie apart in memory', async () => {
    const attention: Function = (qkv) => {
      const [q, k, v] = tf.unstack(qkv.reshape([2, 40, 3, 2, 32]), 2) as tf.Tensor4D[];
      return ops.attention(q, k, v, { causal: true });
    };
    await expectAgreement(engine, attention, [[2, 40, 192]]);
  });

  // Plain JavaScript is slow for this shape, and splits the rows in the same way.
  it.skipIf(engine === 'cpu')('nearestCode of more rows than there is room for distances', () => {
    const entries = 2 ** 21; // 32 rows at a time; integers, so distances are exact
    const point = (n: number) => [(n % 2048) - 1024, Math.floor(n / 2048) - 512];
    const codes = tf.tensor2d(Array.from({ length: entries }, (_, n) => point(n)));
    const wanted = Array.from({ length: 70 }, (_, i) => (i * 30011) % entries);
    const runs = vi.spyOn(tf.engine(), 'runKernel');
    expect([...ops.nearestCode(tf.tensor2d(wanted.map(point)), codes).dataSync()]).toEqual(wanted);
    expect(runs.mock.calls.filter(([name]) => name === 'alitok.NearestCode')).toHaveLength(3);
    runs.mockRestore();
  });
});

describeEngines('numbers that are not finite', () => {
  it('pass through every fast kernel, so that the guards see them', () => {
    const spoiled = (...shape: number[]) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5);
      values[3] = Number.NaN;
      return tf.tensor(values, shape);
    };
    const x = spoiled(40, 48);
    const q = spoiled(1, 40, 1, 48) as tf.Tensor4D;
    const weight = tf.ones([64, 48]);
    const results = {
      linear: ops.linear(x, weight),
      linearFew: ops.linear(x.slice(0, 2), weight),
      rmsNorm: ops.rmsNorm(x, tf.ones([48])),
      layerNorm: ops.layerNorm(x, tf.ones([48]), tf.zeros([48])),
      gelu: ops.gelu(x),
      swiGLU: ops.swiGLU(x, x),
      attention: ops.attention(q, q, q, { causal: true }),
      crossEntropy: ops.crossEntropy(x as tf.Tensor2D, tf.zeros([40], 'int32')),
      sumOfSquares: ops.sumOfSquares([x]),
    };
    const finite = Object.entries(results).filter(([, y]) => !y.dataSync().some(Number.isNaN));
    expect(finite.map(([name]) => name)).toEqual([]);
  });
});

describeEngines('packed weights', (engine) => {
  const onProcessor = device === 'cpu';
  const packs = engine === 'libtorch' || engine === 'tensorflow';
  describe.skipIf(!packs)('in fewer bits', () => {
    it.each<['bf16' | 'int8', number]>([
      ['bf16', onProcessor ? 4e-3 : 6e-3], // a CUDA device rounds x and y as well
      ...(onProcessor ? [['int8', 1.5e-2] as ['int8', number]] : []),
    ])('%s: a product is off by rounding alone', (kind, tolerance) => {
      const [x, weight, bias] = [draw('x', [5, 192]), draw('w', [67, 192]), draw('b', [67])];
      const exact = ops.linear(x, weight, bias).sub(bias);
      const packed = ops.packWeight(weight, kind);
      const difference = ops.packedLinear(x, packed, bias).sub(bias).sub(exact);
      const ratio = difference.norm().div(exact.norm()).dataSync()[0];
      expect(ratio).toBeGreaterThan(0);
      expect(ratio).toBeLessThan(tolerance);
    });
  });

  describe.skipIf(!packs || !onProcessor)('in int8', () => {
    // 4,160 is wider than the sums that are accumulated in bytes.
    it.each([64, 768, 4160])('rows of %i weights are scaled by their largest, in 127 steps', (width) => {
      const rows = 67;
      const [x, weight] = [draw('x', [5, width]), draw('w', [rows, width])];
      const [values, numbers] = [weight.dataSync(), x.dataSync()];
      const row = (of: ArrayLike<number>, i: number) =>
        Array.from({ length: width }, (_, j) => of[i * width + j]);
      const expected = [0, 1, 2, 3, 4].flatMap((i) =>
        Array.from({ length: rows }, (_, o) => {
          const w = row(values, o);
          const step = Math.fround(Math.max(...w.map(Math.abs)) / 127);
          return row(numbers, i).reduce((sum, v, j) => sum + v * Math.round(w[j] / step) * step, 0);
        }),
      );
      const got = ops.packedLinear(x, ops.packWeight(weight, 'int8')).dataSync();
      const size = Math.sqrt(expected.reduce((sum, v) => sum + v * v, 0) / expected.length);
      const furthest = Math.max(...expected.map((v, i) => Math.abs(v - got[i])));
      expect(furthest / size).toBeLessThan(3e-4); // x is rounded to 16 bits, relative to its largest number
    });

    it('zeros stay zero, and non-finite numbers are preserved', () => {
      const weight = ops.packWeight(draw('w', [67, 64]), 'int8');
      const bias = draw('b', [67]);
      for (const [fill, expected] of [
        [0, (i: number) => bias.dataSync()[i]],
        [Number.NaN, () => Number.NaN],
        [Number.POSITIVE_INFINITY, () => Number.NaN],
      ] as const) {
        const x = tf.tensor([fill, ...new Array(63).fill(fill === 0 ? 0 : 1)], [1, 64]);
        const y = [...ops.packedLinear(x, weight, bias).dataSync()];
        expect(y.map((v) => (Number.isFinite(v) ? v : Number.NaN))).toEqual(y.map((_, i) => expected(i)));
      }
    });
  });

  it.skipIf(engine !== 'libtorch' || device === 'cpu')('a CUDA device refuses int8', () => {
    expect(() => ops.packWeight(tf.ones([2, 64]), 'int8')).toThrow(
      /int8 need device: 'cpu'; on cuda:0 use weights: 'bf16'/,
    );
  });

  it.skipIf(packs)('an engine without them refuses', () => {
    expect(() => ops.packWeight(tf.ones([2, 64]), 'int8')).toThrow(
      /does not support weights in int8; use engine: 'libtorch'/,
    );
  });
});
