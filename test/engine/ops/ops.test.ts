import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { vocabulary } from '../../../src/engine/ops/define.js';
import * as ops from '../../../src/engine/ops/index.js';
import { Random } from '../../../src/random.js';
import { describeEngines, device } from '../../support/engines.js';

type Shape = number[];

const size = (shape: Shape) => shape.reduce((a, b) => a * b, 1);

/** Standard normal values that depend only on the name. */
function values(name: string, shape: Shape): Float32Array {
  const random = Random.of(1, name);
  return Float32Array.from({ length: size(shape) }, () => random.normal());
}

function draw<T extends tf.Tensor = tf.Tensor>(name: string, shape: Shape): T {
  return tf.tensor(values(name, shape), shape) as unknown as T;
}

/** Row-major element access for the plain references below. */
function at(data: ArrayLike<number>, shape: Shape, ...index: number[]): number {
  return data[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)];
}

function expectNear(actual: tf.Tensor, expected: ArrayLike<number>, tolerance = 1e-5) {
  const got = actual.dataSync();
  expect(got.length).toBe(expected.length);
  const scale = Math.max(1e-6, ...Array.from(expected, Math.abs));
  for (let i = 0; i < got.length; i++)
    expect(Math.abs(got[i] - expected[i]), `element ${i}: ${got[i]} for ${expected[i]}`).toBeLessThanOrEqual(
      tolerance * scale,
    );
}

/** Kernels that the tests of one engine call directly, by what the tests check; without kernels called by compositions. */
const ran = { values: new Set<string>(), gradients: new Set<string>() };
let checking: keyof typeof ran = 'values';

/** Records kernels in `ran` from now on; returns a function that stops it. */
function watchKernels(): () => void {
  const engine = tf.engine();
  const { runKernel } = engine;
  for (const names of Object.values(ran)) names.clear();
  engine.runKernel = (...args: Parameters<typeof runKernel>) => {
    if (engine.state.kernelDepth === 0) ran[checking].add(args[0]);
    return runKernel.apply(engine, args) as never;
  };
  return () => {
    engine.runKernel = runKernel;
  };
}

/** Checks gradients by all inputs against central differences. */
function expectGradient(...args: Parameters<typeof compareGradient>) {
  checking = 'gradients';
  try {
    compareGradient(...args);
  } finally {
    checking = 'values';
  }
}

/**
 * The derivative of Σ f(inputs)·weights along a random direction, from the gradient and from central differences.
 */
function compareGradient(
  f: (...inputs: tf.Tensor[]) => tf.Tensor,
  shapes: Shape[],
  step = 1e-2,
  tolerance = 1e-2,
) {
  const inputs = shapes.map((shape, i) => draw(`input ${i}`, shape));
  const directions = shapes.map((shape, i) => draw(`direction ${i}`, shape));
  const weights = draw('weights', f(...inputs).shape);
  const objective = (...x: tf.Tensor[]) =>
    f(...x)
      .mul(weights)
      .sum() as tf.Scalar;
  const gradients = tf.grads(objective)(inputs);
  inputs.forEach((input, i) => {
    expect(gradients[i].shape).toEqual(input.shape);
    const moved = (t: number) => {
      const x = inputs.map((other, j) => (j === i ? other.add(directions[i].mul(t)) : other));
      return objective(...x).dataSync()[0];
    };
    const numeric = (moved(step) - moved(-step)) / (2 * step);
    const analytic = gradients[i].mul(directions[i]).sum().dataSync()[0];
    const scale = Math.max(1, Math.abs(numeric), gradients[i].norm().dataSync()[0]);
    expect(Math.abs(analytic - numeric) / scale, `input ${i}: ${analytic} for ${numeric}`).toBeLessThan(
      tolerance,
    );
  });
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** erf by its series, to float64 rounding for |x| < 5. */
function erf(x: number): number {
  let [term, sum] = [x, x];
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

describeEngines(
  'op vocabulary',
  (engine) => {
    let stop = () => {};
    beforeAll(() => {
      stop = watchKernels();
    });
    afterAll(() => stop());

    describe('linear', () => {
      for (const [rows, inputs, outputs] of [
        [1, 5, 3],
        [7, 13, 9],
        [37, 32, 50],
      ])
        it(`${rows}×${inputs} by ${outputs}`, () => {
          const [x, w, b] = [
            values('x', [rows, inputs]),
            values('w', [outputs, inputs]),
            values('b', [outputs]),
          ];
          const expected = Array.from({ length: rows * outputs }, (_, i) => {
            const [row, out] = [Math.floor(i / outputs), i % outputs];
            let sum = b[out];
            for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * w[out * inputs + k];
            return sum;
          });
          const y = ops.linear(
            draw('x', [1, rows, inputs]),
            draw('w', [outputs, inputs]),
            draw('b', [outputs]),
          );
          expect(y.shape).toEqual([1, rows, outputs]);
          expectNear(y, expected);
        });
      it('gradient', () => expectGradient((x, w, b) => ops.linear(x, w, b), [[2, 3, 5], [7, 5], [7]]));
      it('gradient without bias', () =>
        expectGradient(
          (x, w) => ops.linear(x, w),
          [
            [6, 5],
            [3, 5],
          ],
        ));
    });

    it('layerNorm', () => {
      const [rows, d] = [5, 11];
      const [x, w, b] = [values('x', [rows, d]), values('w', [d]), values('b', [d])];
      const expected = Array.from(x, (value, i) => {
        const row = x.subarray(i - (i % d), i - (i % d) + d);
        const mean = row.reduce((s, v) => s + v, 0) / d;
        const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / d;
        return ((value - mean) / Math.sqrt(variance + 1e-5)) * w[i % d] + b[i % d];
      });
      expectNear(ops.layerNorm(draw('x', [rows, d]), draw('w', [d]), draw('b', [d])), expected);
      expectGradient((x, w, b) => ops.layerNorm(x, w, b), [[2, 5, d], [d], [d]]);
    });

    it('rmsNorm', () => {
      const [rows, d] = [5, 10];
      const [x, w] = [values('x', [rows, d]), values('w', [d])];
      const expected = Array.from(x, (value, i) => {
        const row = x.subarray(i - (i % d), i - (i % d) + d);
        return (value / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / d + 1e-5)) * w[i % d];
      });
      expectNear(ops.rmsNorm(draw('x', [rows, d]), draw('w', [d])), expected);
      expectGradient((x, w) => ops.rmsNorm(x, w), [[2, 3, 2, d], [d]]);
    });

    it('groupNorm', () => {
      const shape = [2, 3, 5, 8];
      const [x, w, b] = [values('x', shape), values('w', [8]), values('b', [8])];
      const groups = 4;
      const expected = Array.from(x, (value, i) => {
        const [image, group] = [Math.floor(i / 120), Math.floor((i % 8) / 2)];
        const members = Array.from({ length: 30 }, (_, j) => {
          return x[image * 120 + Math.floor(j / 2) * 8 + group * 2 + (j % 2)];
        });
        const mean = members.reduce((s, v) => s + v, 0) / 30;
        const variance = members.reduce((s, v) => s + (v - mean) ** 2, 0) / 30;
        return ((value - mean) / Math.sqrt(variance + 1e-5)) * w[i % 8] + b[i % 8];
      });
      expectNear(ops.groupNorm(draw('x', shape), draw('w', [8]), draw('b', [8]), groups), expected);
      expectGradient((x, w, b) => ops.groupNorm(x as tf.Tensor4D, w, b, groups), [shape, [8], [8]]);
    });

    describe('layers of frozen networks', () => {
      /** Convolution of x (B, H, W, C) by a weight (out, C or 1, k, k) of stride s from offset −p, NHWC. */
      function convolved(
        [shape, x]: [Shape, Float32Array],
        [weightShape, weight]: [Shape, Float32Array],
        bias: Float32Array,
        { stride, before, size }: { stride: number; before: number; size: number },
      ): number[] {
        const [batch, height, width, channels] = shape;
        const [outputs, inputs, k] = weightShape;
        const result: number[] = [];
        for (let b = 0; b < batch; b++)
          for (let i = 0; i < size; i++)
            for (let j = 0; j < size; j++)
              for (let o = 0; o < outputs; o++) {
                let sum = bias[o];
                for (let c = 0; c < inputs; c++)
                  for (let u = 0; u < k; u++)
                    for (let v = 0; v < k; v++) {
                      const [y, z] = [i * stride + u - before, j * stride + v - before];
                      if (y < 0 || z < 0 || y >= height || z >= width) continue;
                      const channel = inputs === channels ? c : o;
                      sum += at(x, shape, b, y, z, channel) * at(weight, weightShape, o, c, u, v);
                    }
                result.push(sum);
              }
        return result;
      }

      for (const [kernel, stride, same, before, size] of [
        [3, 1, true, 1, 6],
        [1, 1, true, 0, 6],
        [3, 2, false, 0, 2],
        [2, 2, false, 0, 3],
      ] as [number, number, boolean, number, number][])
        it(`frozenConv2d of ${kernel}×${kernel}, stride ${stride}`, () => {
          const [shape, weightShape] = [
            [2, 6, 6, 5],
            [7, 5, kernel, kernel],
          ];
          const [x, w, b] = [values('x', shape), values('w', weightShape), values('b', [7])];
          const plain = convolved([shape, x], [weightShape, w], b, { stride, before, size });
          const run = (input: tf.Tensor, relu: boolean) =>
            ops.frozenConv2d(input as tf.Tensor4D, draw('w', weightShape), draw('b', [7]), {
              stride,
              same,
              relu,
            });
          expectNear(run(draw('x', shape), false), plain);
          expectNear(
            run(draw('x', shape), true),
            plain.map((value) => Math.max(value, 0)),
          );
          expectGradient((input) => run(input, false), [shape]);
          expectGradient((input) => run(input, true).square(), [shape], 1e-3, 2e-2);
        });

      it('ReLU stops a NaN gradient', () => {
        const [x, w, b] = [tf.tensor4d([-1, 2], [1, 1, 2, 1]), tf.ones([1, 1, 1, 1]), tf.zeros([1])];
        const norm = (y: tf.Tensor) =>
          ops
            .frozenConv2d(y as tf.Tensor4D, w, b, { relu: true })
            .square()
            .sqrt();
        expect([
          ...tf
            .grad((y) => norm(y).sum())(x)
            .dataSync(),
        ]).toEqual([0, 1]);
      });

      it('frozenDepthwiseConv2d of 7×7', () => {
        const [shape, weightShape] = [
          [2, 5, 5, 38],
          [38, 1, 7, 7],
        ];
        const [x, w, b] = [values('x', shape), values('w', weightShape), values('b', [38])];
        const run = (input: tf.Tensor) =>
          ops.frozenDepthwiseConv2d(input as tf.Tensor4D, draw('w', weightShape), draw('b', [38]));
        const window = { stride: 1, before: 3, size: 5 };
        expectNear(run(draw('x', shape)), convolved([shape, x], [weightShape, w], b, window));
        expectGradient(run, [shape]);
      });

      it('frozenLinear is linear, with a gradient by x', () => {
        const run = (x: tf.Tensor) => ops.frozenLinear(x, draw('w', [7, 5]), draw('b', [7]));
        const x = draw('x', [2, 3, 5]);
        expectNear(run(x), ops.linear(x, draw('w', [7, 5]), draw('b', [7])).dataSync());
        expectGradient(run, [[2, 3, 5]]);
      });
    });

    it('means and maxima of 3×3 pixels ignore the padding', () => {
      const x = tf.tensor4d(
        [1, 2, 3, 4, 5, 6, 7, 8, 9].map((v) => -v),
        [1, 3, 3, 1],
      );
      expectNear(
        tf.avgPool(x, 3, 1, 'same'),
        [3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7].map((v) => -v),
      );
      expectNear(
        tf.maxPool(x, 3, 1, 'same'),
        [1, 1, 2, 1, 1, 2, 4, 4, 5].map((v) => -v),
      );
      expectGradient((y) => tf.maxPool(y as tf.Tensor4D, 2, 2, 'valid'), [[2, 4, 6, 3]], 1e-3);
    });

    it('gelu', () => {
      const x = Float32Array.from({ length: 81 }, (_, i) => (i - 40) / 10);
      const expected = Array.from(x, (v) => 0.5 * v * (1 + erf(v / Math.SQRT2)));
      expectNear(ops.gelu(tf.tensor1d(x)), expected, 1e-6);
      expect(ops.gelu(tf.tensor1d([-30, 30])).dataSync()[1]).toBe(30);
      expectGradient((x) => ops.gelu(x), [[3, 7]]);
    });

    it('swiGLU', () => {
      const [gate, value] = [values('gate', [41]), values('value', [41])];
      const expected = Array.from(gate, (g, i) => g * sigmoid(g) * value[i]);
      expectNear(ops.swiGLU(draw('gate', [41]), draw('value', [41])), expected, 1e-6);
      expectGradient(
        (g, v) => ops.swiGLU(g, v),
        [
          [3, 7],
          [3, 7],
        ],
      );
    });

    it('rotary', () => {
      const shape = [2, 3, 2, 8];
      const [x, cos, sin] = [values('x', shape), values('cos', [3, 4]), values('sin', [3, 4])];
      const expected = Array.from(x, (value, i) => {
        const pair = Math.floor((i % 8) / 2);
        const token = Math.floor(i / 16) % 3;
        const [c, s] = [cos[token * 4 + pair], sin[token * 4 + pair]];
        return i % 2 === 0 ? value * c - x[i + 1] * s : value * c + x[i - 1] * s;
      });
      const [c, s] = [draw<tf.Tensor2D>('cos', [3, 4]), draw<tf.Tensor2D>('sin', [3, 4])];
      expectNear(ops.rotary(draw('x', shape), c, s), expected);
      expectGradient((x) => ops.rotary(x as tf.Tensor4D, c, s), [shape]);
    });

    it('normRotary', () => {
      const [batch, tokens, heads, d] = [2, 3, 2, 8];
      const shape = [batch, tokens, heads, d];
      const [x, w] = [values('x', shape), values('w', [d])];
      const [cos, sin] = [values('cos', [tokens, d / 2]), values('sin', [tokens, d / 2])];
      const normed = Array.from(x, (value, i) => {
        const row = x.subarray(i - (i % d), i - (i % d) + d);
        return (value / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / d + 1e-5)) * w[i % d];
      });
      const expected = normed.map((value, i) => {
        const angle = (Math.floor(i / (d * heads)) % tokens) * (d / 2) + Math.floor((i % d) / 2);
        const [c, s] = [cos[angle], sin[angle]];
        return i % 2 === 0 ? value * c - normed[i + 1] * s : value * c + normed[i - 1] * s;
      });
      const [c, s] = [draw<tf.Tensor2D>('cos', [tokens, d / 2]), draw<tf.Tensor2D>('sin', [tokens, d / 2])];
      expectNear(ops.normRotary(draw('x', shape), draw('w', [d]), c, s), expected);
      expectGradient((x, w) => ops.normRotary(x as tf.Tensor4D, w, c, s), [shape, [d]]);
    });

    describe('attention', () => {
      function reference(queries: number, keys: number, causal: boolean, used = keys) {
        const [B, H, D] = [2, 3, 8];
        const [qs, ks] = [
          [B, queries, H, D],
          [B, keys, H, D],
        ];
        const [q, k, v] = [values('q', qs), values('k', ks), values('v', ks)];
        const out: number[] = [];
        for (let b = 0; b < B; b++)
          for (let i = 0; i < queries; i++)
            for (let h = 0; h < H; h++) {
              const visible = causal ? i + used - queries + 1 : used;
              const scores = Array.from({ length: visible }, (_, j) => {
                let dot = 0;
                for (let d = 0; d < D; d++) dot += at(q, qs, b, i, h, d) * at(k, ks, b, j, h, d);
                return Math.exp(dot / Math.sqrt(D));
              });
              const total = scores.reduce((s, e) => s + e, 0);
              for (let d = 0; d < D; d++)
                out.push(scores.reduce((s, e, j) => s + (e / total) * at(v, ks, b, j, h, d), 0));
            }
        const y = ops.attention(draw('q', qs), draw('k', ks), draw('v', ks), { causal, keyLength: used });
        expectNear(y, out);
      }
      it('bidirectional', () => reference(5, 5, false));
      it('causal', () => reference(9, 9, true));
      it('one query on a cache that is not full', () => reference(1, 9, true, 6));
      it('several queries on a cache that is not full', () => reference(3, 9, true, 7));
      it('long enough for every blocked path', () => reference(67, 67, true));
      const shapes = [
        [2, 6, 2, 4],
        [2, 6, 2, 4],
        [2, 6, 2, 4],
      ];
      for (const causal of [false, true])
        it(`gradient, ${causal ? 'causal' : 'bidirectional'}`, () =>
          expectGradient(
            (q, k, v) => ops.attention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, { causal }),
            shapes,
          ));
      it('gradient with dropout', () =>
        expectGradient(
          (q, k, v) =>
            ops.attention(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, {
              causal: true,
              dropout: 0.3,
              seed: 7,
            }),
          shapes,
        ));
    });

    it('cacheWrite fills its rows and leaves the others', () => {
      const cache = tf.variable(draw<tf.Tensor4D>('cache', [2, 5, 3, 4]));
      const before = cache.arraySync();
      const update = draw<tf.Tensor4D>('update', [2, 2, 3, 4]);
      ops.cacheWrite(cache, update, 2);
      const after = cache.arraySync();
      const written = update.arraySync();
      for (const b of [0, 1])
        for (let row = 0; row < 5; row++)
          expect(after[b][row]).toEqual(row === 2 || row === 3 ? written[b][row - 2] : before[b][row]);
    });

    it('dropout keeps the right share, scaled, and the same elements for the same seed', () => {
      const x = tf.ones([100, 100]);
      const [a, b, c] = [1, 1, 2].map((seed) => ops.dropout(x, 0.3, seed).dataSync());
      expect(a).toEqual(b);
      expect(a).not.toEqual(c);
      const kept = a.filter((value) => value > 0);
      expect(kept.length / a.length).toBeCloseTo(0.7, 1);
      expect(Math.abs(kept[0] - 1 / 0.7)).toBeLessThan(1e-6);
      // The first decisions of seed 1, so that every engine drops the same elements.
      expect(Array.from(a.slice(0, 12), (value) => (value > 0 ? 1 : 0))).toEqual(FIRST_KEPT);
      expectGradient((x) => ops.dropout(x, 0.5, 3), [[6, 7]]);
    });

    it('embedding', () => {
      const weight = draw('weight', [6, 5]);
      const indices = tf.tensor2d([3, 0, 3, 5], [2, 2], 'int32');
      const y = ops.embedding(weight, indices);
      expect(y.shape).toEqual([2, 2, 5]);
      const data = weight.dataSync();
      expectNear(
        y,
        [3, 0, 3, 5].flatMap((row) => [...data.slice(row * 5, row * 5 + 5)]),
        0,
      );
      expectGradient((w) => ops.embedding(w, indices), [[6, 5]]);
    });

    it('crossEntropy', () => {
      const logits = values('logits', [4, 9]);
      const targets = [8, 0, 3, 3];
      const expected = targets.map((target, row) => {
        const own = Array.from(logits.slice(row * 9, row * 9 + 9));
        return Math.log(own.reduce((s, v) => s + Math.exp(v), 0)) - own[target];
      });
      const ids = tf.tensor1d(targets, 'int32');
      expectNear(ops.crossEntropy(draw('logits', [4, 9]), ids), expected);
      const large = ops.crossEntropy(tf.tensor2d([[1000, 0, -1000]]), tf.tensor1d([2], 'int32'));
      expect(large.dataSync()[0]).toBeCloseTo(2000, 2);
      expectGradient((logits) => ops.crossEntropy(logits as tf.Tensor2D, ids), [[4, 9]]);
    });

    it('nearestCode', () => {
      const [z, codes] = [values('z', [23, 6]), values('codes', [17, 6])];
      const expected = Array.from({ length: 23 }, (_, row) => {
        const distances = Array.from({ length: 17 }, (_, n) =>
          codes.slice(n * 6, n * 6 + 6).reduce((s, e, i) => s + (z[row * 6 + i] - e) ** 2, 0),
        );
        return distances.indexOf(Math.min(...distances));
      });
      expect([...ops.nearestCode(draw('z', [23, 6]), draw('codes', [17, 6])).dataSync()]).toEqual(expected);
      const tie = tf.tensor2d([
        [1, 0],
        [1, 0],
      ]);
      expect([...ops.nearestCode(tf.tensor2d([[1, 0]]), tie).dataSync()]).toEqual([0]);
    });

    it('adamW: two steps of the published formulas', () => {
      const hyper = {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weightDecay: 0.01,
        gradientScale: 0.5,
      };
      let state = [draw('p', [5]).mul(1), tf.zeros([5]), tf.zeros([5])];
      const shared = state[0].clone();
      const p = Float64Array.from(values('p', [5]));
      const [m, v] = [new Float64Array(5), new Float64Array(5)];
      for (const step of [1, 2]) {
        const g = values(`g ${step}`, [5]);
        const [parameter, moment, variance] = state;
        const tensors = { parameter, gradient: draw(`g ${step}`, [5]), m: moment, v: variance };
        [state] = ops.adamW([tensors], { ...hyper, step });
        for (let i = 0; i < 5; i++) {
          const scaled = 0.5 * g[i];
          p[i] *= 1 - 0.1 * 0.01;
          m[i] = 0.9 * m[i] + 0.1 * scaled;
          v[i] = 0.99 * v[i] + 0.01 * scaled ** 2;
          const corrected = Math.sqrt(v[i] / (1 - 0.99 ** step)) + 1e-8;
          p[i] -= (0.1 * m[i]) / (1 - 0.9 ** step) / corrected;
        }
      }
      expectNear(shared, values('p', [5])); // memory that is shared is not reused
      expectNear(state[0], p);
      expectNear(state[1], m);
      expectNear(state[2], v);
    });

    it('sumOfSquares', () => {
      const shapes = [[3, 7], [1], [2, 2, 5]];
      const expected = shapes
        .flatMap((shape, i) => [...values(`x ${i}`, shape)])
        .reduce((s, x) => s + x * x, 0);
      expectNear(ops.sumOfSquares(shapes.map((shape, i) => draw(`x ${i}`, shape))), [expected]);
    });

    it('newCache is empty', () => {
      const cache = ops.newCache([2, 5, 3, 4]);
      expect(cache.shape).toEqual([2, 5, 3, 4]);
      expect(cache.dataSync().every((value) => value === 0)).toBe(true);
      cache.dispose();
    });

    it('drawCodes takes the first code whose running sum exceeds the number', () => {
      const logits = tf.tile(tf.tensor2d([[0.5, 0.3, 0.15, 0.05].map(Math.log)]), [4, 1]) as tf.Tensor2D;
      const options = { temperature: 1, top_k: 0, top_p: 1 };
      const codes = ops.drawCodes(logits, tf.tensor1d([0.2, 0.6, 0.9, 0.99]), options);
      expect([...codes.dataSync()]).toEqual([0, 1, 2, 3]);
    });

    // Operations without a composition, on the engines and the device where all of them have a kernel.
    describe.runIf(['libtorch', 'tensorflow'].includes(engine) && device === 'cpu')(
      'steps of sampling',
      () => {
        it.each(['bf16', 'int8'] as const)('packedLinear with a weight in %s', (kind) => {
          const [x, weight, bias] = [draw('x', [3, 64]), draw('w', [7, 64]), draw('b', [7])];
          const packed = ops.packWeight(weight, kind);
          const tolerance = kind === 'bf16' ? 4e-3 : 1.5e-2;
          expectNear(ops.packedLinear(x, packed, bias), ops.linear(x, weight, bias).dataSync(), tolerance);
        });

        it('drawStep draws like drawCodes, and advances', () => {
          const logits = draw<tf.Tensor2D>('logits', [6, 9]); // three images with the class, then without
          const uniforms = tf.tensor2d([0.1, 0.9, 0.4, 0.2, 0.7, 0.5], [2, 3]);
          const variable = <R extends tf.Rank>(x: tf.Tensor<R>) => tf.variable(x, false) as tf.Variable<R>;
          const state = {
            position: variable(tf.tensor1d([1], 'int32')),
            ids: variable(tf.zeros<tf.Rank.R1>([6], 'int32')),
            codes: variable(tf.zeros<tf.Rank.R2>([3, 2], 'int32')),
            uniforms,
            scales: tf.tensor1d([1, 2.5]),
          };
          const options = { temperature: 0.8, top_k: 5, top_p: 0.9 };
          ops.drawStep(logits, state, options);
          const [conditional, free] = tf.split(logits, 2);
          const mixed = free.add(conditional.sub(free).mul(2.5)) as tf.Tensor2D;
          const codes = [...ops.drawCodes(mixed, tf.tensor1d([0.2, 0.7, 0.5]), options).dataSync()];
          expect(state.codes.arraySync()).toEqual(codes.map((code) => [0, code]));
          expect([...state.ids.dataSync()]).toEqual([...codes, ...codes]);
          expect([...state.position.dataSync()]).toEqual([2]);
        });

        it('generatorStep equals its operations one after the other', () => {
          const [batch, heads, width, tokens, d, hidden] = [3, 2, 16, 5, 32, 48];
          const layer = (name: string, outputs: number, inputs: number) => ({
            weight: draw(name, [outputs, inputs]).mul(0.2),
            bias: draw(`${name}.bias`, [outputs]),
          });
          const layers = {
            qkv: layer('qkv', 3 * d, d),
            proj: layer('proj', d, d),
            w1: layer('w1', hidden, d),
            w3: layer('w3', hidden, d),
            w2: layer('w2', d, hidden),
          };
          const norms = {
            norm1: draw('norm1', [d]),
            qNorm: draw('qNorm', [width]),
            kNorm: draw('kNorm', [width]),
            norm2: draw('norm2', [d]),
          };
          const [x, norm] = [draw('x', [batch, 1, d]), draw('norm', [d])];
          const [cos, sin] = [draw<tf.Tensor2D>('cos', [tokens, 8]), draw<tf.Tensor2D>('sin', [tokens, 8])];
          const position = 2; // two rows of the caches are filled
          const filled = (name: string) => {
            const cache = ops.newCache([batch, tokens, heads, width]);
            ops.cacheWrite(cache, draw<tf.Tensor4D>(name, [batch, position, heads, width]), 0);
            return cache;
          };
          const block = { norms, layers, packed: false };
          expect(ops.hasGeneratorStep(batch, [block])).toBe(true);
          expect(ops.joinLayers(block)).toBeUndefined(); // only on CUDA devices

          const apply = (input: tf.Tensor, { weight, bias }: ops.StepLayer) =>
            ops.linear(input, weight, bias);
          const qkv = apply(ops.rmsNorm(x, norms.norm1), layers.qkv).reshape([batch, 1, 3, heads, width]);
          const [q, k, v] = tf.unstack(qkv, 2) as tf.Tensor4D[];
          const row = (table: tf.Tensor2D) => table.slice([position, 0], [1, -1]);
          const turned = (head: tf.Tensor4D, weight: tf.Tensor) =>
            ops.normRotary(head, weight, row(cos), row(sin));
          const apart = { k: filled('k'), v: filled('v') };
          ops.cacheWrite(apart.k, turned(k, norms.kNorm), position);
          ops.cacheWrite(apart.v, v, position);
          const keyLength = position + 1;
          const seen = ops.attention(turned(q, norms.qNorm), apart.k, apart.v, { causal: true, keyLength });
          const h = x.add(apply(seen.reshape([batch, 1, d]), layers.proj));
          const n = ops.rmsNorm(h, norms.norm2);
          const expected = h.add(apply(ops.swiGLU(apply(n, layers.w1), apply(n, layers.w3)), layers.w2));

          const together = { k: filled('k'), v: filled('v') };
          const place = { cos, sin, position: tf.tensor1d([position], 'int32'), caches: [together] };
          const y = ops.generatorStep(x, [block], norm, place);
          expectNear(y, ops.rmsNorm(expected, norm).dataSync());
          expectNear(together.k, apart.k.dataSync());
          expectNear(together.v, apart.v.dataSync());
          tf.dispose([apart, together]);
        });
      },
    );

    it('stopGradient keeps the values and blocks the gradient', () => {
      const gradient = tf.grad((x) => x.mul(ops.stopGradient(x)).sum())(tf.tensor1d([2, 3]));
      expect([...gradient.dataSync()]).toEqual([2, 3]);
    });

    it('stopGradient frees no live tensor and leaks nothing', () => {
      const x = tf.tensor1d([1, 2]);
      const before = tf.memory();
      tf.tidy(() => {
        ops.stopGradient(x);
      });
      expect(tf.memory()).toMatchObject({
        numTensors: before.numTensors,
        numDataBuffers: before.numDataBuffers,
      });
      expect([...x.dataSync()]).toEqual([1, 2]);
    });

    // Runs last, after the tests of the operations, and finds operations without a test.
    it('is tested completely, with all gradients', () => {
      const all = vocabulary();
      const backward = new Set(all.map((op) => op.backward));
      const everywhere = engine === 'libtorch' && device === 'cpu';
      const forward = all.filter((op) => !backward.has(op) && (op.compose || everywhere));
      const names = (list: typeof all) => list.map(({ kernelName }) => kernelName);
      expect(names(forward.filter(({ kernelName }) => !ran.values.has(kernelName)))).toEqual([]);
      const differentiated = all.filter((op) => op.hasGradient || backward.has(op));
      expect(names(differentiated.filter(({ kernelName }) => !ran.gradients.has(kernelName)))).toEqual([]);
    });
  },
  ['cpu'],
);

describeEngines('tfjs operations that training needs', () => {
  const conv = (stride: number, pad: 'same' | 'valid') => (x: tf.Tensor, w: tf.Tensor) =>
    tf.conv2d(x as tf.Tensor4D, w as tf.Tensor4D, stride, pad);
  it('convolution gradients', () => {
    expectGradient(conv(1, 'same'), [
      [2, 5, 6, 3],
      [3, 3, 3, 4],
    ]);
    expectGradient(conv(2, 'same'), [
      [1, 7, 6, 3],
      [5, 5, 3, 2],
    ]);
    expectGradient(conv(2, 'valid'), [
      [1, 7, 6, 3],
      [2, 3, 3, 5],
    ]);
    expectGradient(conv(1, 'same'), [
      [2, 4, 4, 6],
      [1, 1, 6, 3],
    ]);
  });
  it('depthwise convolution gradients', () =>
    expectGradient(
      (x, w) => tf.depthwiseConv2d(x as tf.Tensor4D, w as tf.Tensor4D, 2, 'same'),
      [
        [2, 6, 5, 3],
        [4, 4, 3, 1],
      ],
    ));
  it('batched matrix products, transposed and broadcast', () => {
    expectGradient(
      (a, b) => tf.matMul(a, b),
      [
        [2, 3, 4, 5],
        [2, 3, 5, 6],
      ],
    );
    expectGradient(
      (a, b) => tf.matMul(a, b, true, true),
      [
        [3, 5, 4],
        [3, 6, 5],
      ],
    );
    // tfjs has no gradient through broadcasting here, so only the product itself is tested
    const [a, b] = [draw('a', [3, 4, 5]), draw('b', [1, 5, 6])];
    const each = tf.unstack(a).map((x) => tf.matMul(x as tf.Tensor2D, b.squeeze([0])));
    expectNear(tf.matMul(a, b), tf.stack(each).dataSync());
  });
  it('einsum', () => {
    const [a, b] = [draw<tf.Tensor3D>('a', [2, 3, 4]), draw<tf.Tensor3D>('b', [2, 4, 5])];
    expectNear(tf.einsum('bij,bjk->bik', a, b), tf.matMul(a, b).dataSync());
    expectNear(tf.einsum('bij->ji', a), a.sum(0).transpose().dataSync());
  });
  it('gather along an axis', () => expectGradient((x) => tf.gather(x, [2, 0, 2, 1], 1), [[2, 3, 4]]));
  it('slices, concatenation, tiling, stacking and transposition', () => {
    expectGradient((x) => x.slice([0, 1, 0], [-1, 2, -1]), [[2, 4, 3]]);
    expectGradient(
      (a, b) => tf.concat([a, b], 1),
      [
        [2, 3, 4],
        [2, 1, 4],
      ],
    );
    expectGradient((x) => x.tile([3, 1, 2]), [[1, 2, 3]]);
    expectGradient((x) => tf.stack([...tf.unstack(x, 2)].reverse(), 1), [[2, 4, 3, 2]]);
    expectGradient((x) => x.transpose([0, 1, 3, 5, 2, 4]), [[2, 2, 3, 2, 2, 3]]);
    expectGradient((x) => x.transpose([0, 2, 1, 3]), [[2, 5, 3, 4]]);
  });
  it('max pooling', () => {
    expectGradient((x) => tf.maxPool(x as tf.Tensor4D, 2, 2, 'valid'), [[2, 6, 4, 3]], 1e-3, 2e-2);
    expectGradient((x) => tf.maxPool(x as tf.Tensor4D, 3, 2, 'same'), [[2, 5, 7, 3]], 1e-3, 2e-2);
    expectGradient((x) => tf.maxPool(x as tf.Tensor4D, 3, 1, 'valid'), [[1, 5, 6, 2]], 1e-3, 2e-2);
  });
  it('elementwise', () => {
    expectGradient((x) => x.sigmoid(), [[4, 5]]);
    expectGradient((x) => x.tanh(), [[4, 5]]);
    expectGradient((x) => x.exp(), [[4, 5]]);
    expectGradient((x) => x.erf(), [[4, 5]]);
    expectGradient((x) => tf.leakyRelu(x, 0.1), [[4, 5]], 1e-4, 2e-2);
    expectGradient((x) => x.square().add(1).sqrt(), [[4, 5]]);
    expectGradient((x) => x.softmax(), [[4, 5]]);
    expectGradient((a, b) => a.div(b.square().add(1)), [[4, 5], [5]]);
    expectGradient((x) => x.mean([1, 2]), [[2, 3, 4]]);
    expectGradient((x) => x.sum(0), [[6, 4]]);
    expectGradient((x) => x.norm(2, -1, true), [[3, 4]]);
  });
}, ['cpu']);

/** hash(i, 1) ≥ ⌊0.3·2³²⌋ for i = 0 … 11 */
const FIRST_KEPT = Array.from({ length: 12 }, (_, i) => {
  let h = (BigInt(i) + 0x9e3779b1n) & 0xffffffffn;
  h ^= h >> 16n;
  h = (h * 0x85ebca6bn) & 0xffffffffn;
  h ^= h >> 13n;
  h = (h * 0xc2b2ae35n) & 0xffffffffn;
  h ^= h >> 16n;
  return h >= BigInt(Math.floor(0.3 * 2 ** 32)) ? 1 : 0;
});
