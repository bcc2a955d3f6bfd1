import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../../src/engine/index.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import type { Argument, Native, TensorId } from '../../../src/engine/libtorch/bridge.js';
import { Random } from '../../../src/random.js';
import { loadEmulated } from '../../cuda/emulate.js';

// Compares each CUDA kernel, compiled for the CPU from the same source, with the operators of the CPU.

const BRIDGE = fileURLToPath(new URL('../../../dist/engine/libtorch/bridge.node', import.meta.url));
const [FLOAT, HALF] = [6, 15];
const TYPES = { float32: FLOAT, bfloat16: HALF };
type Type = keyof typeof TYPES;
const kinds = Object.keys(TYPES) as Type[];

describe.skipIf(!existsSync(BRIDGE))('kernels for CUDA devices', () => {
  let native: Native;
  const numbers = new Map<string, number>();

  // biome-ignore lint/suspicious/noExplicitAny: an operator's result has the type that its schema says
  function call(name: string, ...args: Argument[]): any {
    if (!numbers.has(name)) {
      const [base, overload = ''] = name.split('.');
      numbers.set(name, native.find(base.includes('::') ? base : `aten::${base}`, overload)!);
    }
    return native.call(numbers.get(name)!, ...args);
  }
  const emulated = (name: string, ...args: Argument[]) => call(`alitok_emulated::${name}`, ...args);

  /** Numbers of about normal size, rounded to `type`. */
  function draw(shape: number[], seed: number, type: Type = 'float32'): TensorId {
    const random = Random.of(seed, 'kernels');
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal());
    return call('to.dtype', native.fromArray(values, shape, 'cpu'), TYPES[type]);
  }
  const float = (x: TensorId): TensorId => call('to.dtype', x, FLOAT);
  const values = (x: TensorId) => native.read(float(x)) as Float32Array;

  /** ‖found − expected‖ / ‖expected‖ */
  function error(found: TensorId, expected: TensorId): number {
    expect(native.shape(found)).toEqual(native.shape(expected));
    const [a, b] = [values(found), values(expected)];
    let [difference, size] = [0, 0];
    b.forEach((x, i) => {
      difference += (a[i] - x) ** 2;
      size += x * x;
    });
    return Math.sqrt(difference / size);
  }
  const LIMIT = { float32: 1e-6, bfloat16: 4e-3 };

  /** The result of an operator, which must be the same to the last bit when its threads run in the opposite order. */
  function inBothOrders<T extends TensorId | TensorId[]>(run: () => T): T {
    emulated('set_backwards', true);
    const backwards = [run()].flat();
    emulated('set_backwards', false);
    const result = run();
    [result].flat().forEach((x, i) => {
      expect(values(x)).toEqual(values(backwards[i]));
    });
    return result;
  }

  beforeAll(async () => {
    await openEngine('libtorch', { device: 'cpu' });
    native = (tf.backend() as LibtorchBackend).native;
    await loadEmulated();
  }, 300_000);

  describe.each(kinds)('of %s', (type) => {
    it.each([
      ['as many as threads take at once', [2, 4, 256]],
      ['one', [1]],
      ['some more than that', [7, 3, 31]],
    ])('drop the elements that the CPU drops: %s', (_, shape) => {
      const x = draw(shape, 1, type);
      const y = inBothOrders(() => emulated('dropout', x, 0.3, 77, false));
      const expected = call('to.dtype', call('alitok::dropout', float(x), 0.3, 77), TYPES[type]);
      expect(values(y)).toEqual(values(expected));
    });

    it('drop elements of a view with any offset', () => {
      const x = call('narrow', draw([1000], 1, type), 0, 3, 501);
      const expected = call('alitok::dropout', float(x), 0.5, 5);
      expect(error(emulated('dropout', x, 0.5, 5, false), expected)).toBeLessThan(LIMIT[type]);
    });

    it.each([
      [5, 48],
      [3, 768],
      [1, 4],
      [9, 37],
      [2, 130],
    ])('normalise %i rows of %i numbers, and give the gradient', (rows, d) => {
      const [x, dy, weight, bias] = [
        draw([rows, d], 1, type),
        draw([rows, d], 2, type),
        draw([d], 3),
        draw([d], 4),
      ];
      for (const half of [false, true]) {
        const y = inBothOrders(() => emulated('rms_norm', x, weight, 1e-5, half));
        expect(error(y, call('alitok::rms_norm', float(x), weight, 1e-5))).toBeLessThan(
          half ? 4e-3 : LIMIT[type],
        );
        const z = inBothOrders(() => emulated('layer_norm', x, weight, bias, 1e-5, half));
        expect(error(z, call('layer_norm', float(x), [d], weight, bias, 1e-5))).toBeLessThan(
          half ? 4e-3 : LIMIT[type],
        );
      }
      for (const other of kinds) {
        const g = call('to.dtype', dy, TYPES[other]);
        const [dx, dweight] = inBothOrders<TensorId[]>(() => emulated('rms_norm_grad', g, x, weight, 1e-5));
        const expected = call('alitok::rms_norm_grad', float(g), float(x), weight, 1e-5);
        expect(error(dx, expected[0])).toBeLessThan(LIMIT[type]);
        expect(error(dweight, expected[1])).toBeLessThan(1e-5);
        const found = inBothOrders<TensorId[]>(() => emulated('layer_norm_grad', g, x, weight, 1e-5));
        const [, mean, rstd] = call('native_layer_norm', float(x), [d], null, null, 1e-5);
        const through = call(
          'native_layer_norm_backward',
          float(g),
          float(x),
          [d],
          mean,
          rstd,
          weight,
          bias,
          [true, true, true],
        );
        expect(error(found[0], through[0])).toBeLessThan(type === 'float32' ? 5e-6 : 4e-3);
        expect(error(found[1], through[1])).toBeLessThan(1e-5);
        expect(error(found[2], through[2])).toBeLessThan(1e-5);
      }
    });

    it('compute the gradient of norms for more rows than warps', () => {
      const [x, dy, weight] = [draw([5000, 8], 1, type), draw([5000, 8], 2, type), draw([8], 3)];
      const [dx, dweight] = emulated('rms_norm_grad', dy, x, weight, 1e-5);
      const expected = call('alitok::rms_norm_grad', float(dy), float(x), weight, 1e-5);
      expect(error(dx, expected[0])).toBeLessThan(LIMIT[type]);
      expect(error(dweight, expected[1])).toBeLessThan(1e-5);
    });

    it.each([
      [2, 5, 3, 48],
      [1, 1, 1, 2],
      [3, 2, 12, 64],
    ])('turn heads [%i, %i, %i, %i] there and back', (...shape) => {
      const [, tokens, , width] = shape;
      const [x, cos, sin] = [
        draw(shape, 1, type),
        draw([tokens, width / 2], 2),
        draw([tokens, width / 2], 3),
      ];
      for (const inverse of [false, true]) {
        const y = inBothOrders(() => emulated('rotary', x, cos, sin, inverse));
        expect(error(y, call('alitok::rotary', float(x), cos, sin, inverse))).toBeLessThan(LIMIT[type]);
      }
    });

    it.each([
      [2, 5, 3, 48],
      [1, 1, 1, 2],
      [3, 2, 12, 64],
    ])('normalise and turn heads [%i, %i, %i, %i], and give the gradient', (...shape) => {
      const [batch, tokens, heads, width] = shape;
      // Queries, keys and values of one projection.
      const x = call('select.int', draw([batch, tokens, 3, heads, width], 1, type), 2, 1);
      const [weight, cos, sin] = [
        draw([width], 2),
        draw([tokens, width / 2], 3),
        draw([tokens, width / 2], 4),
      ];
      const y = inBothOrders(() => emulated('norm_rotary', x, weight, cos, sin, 1e-5));
      const normed = call('alitok::rms_norm', float(x), weight, 1e-5);
      expect(error(y, call('alitok::rotary', normed, cos, sin, false))).toBeLessThan(LIMIT[type]);
      for (const other of kinds) {
        const heads0 = draw([batch, heads, tokens, width], 5, other);
        const dy = call('permute', heads0, [0, 2, 1, 3]);
        const [dx, dweight] = inBothOrders<TensorId[]>(() =>
          emulated('norm_rotary_grad', dy, x, weight, cos, sin, 1e-5),
        );
        const back = call('alitok::rotary', float(dy), cos, sin, true);
        const expected = call('alitok::rms_norm_grad', back, float(x), weight, 1e-5);
        expect(error(dx, expected[0])).toBeLessThan(LIMIT[type]);
        expect(error(dweight, expected[1])).toBeLessThan(1e-5);
      }
    });

    it.each([[[3, 5, 7]], [[2, 2048]]])('gate %j', (shape) => {
      const [dy, gate, value] = [1, 2, 3].map((seed) => draw(shape, seed, type));
      const y = inBothOrders(() => emulated('swiglu', gate, value));
      expect(error(y, call('alitok::swiglu', float(gate), float(value)))).toBeLessThan(LIMIT[type]);
      const gradients = inBothOrders<TensorId[]>(() => emulated('swiglu_grad', dy, gate, value));
      const expected = call('alitok::swiglu_grad', float(dy), float(gate), float(value));
      gradients.forEach((x, i) => {
        expect(error(x, expected[i])).toBeLessThan(LIMIT[type]);
      });
    });

    it.each([
      [5, 5, true, 0, 0],
      [5, 5, true, 0.4, 3],
      [3, 70, true, 0.1, 2],
      [4, 33, false, 0.25, 7],
      [4, 40, false, 0.25, 0],
    ])(
      'weigh %i queries and %i keys, causal %s, dropout %f, %i behind',
      (queries, keys, causal, rate, behind) => {
        const shape = [2, 3, queries, keys];
        const [scores, dp] = [draw(shape, 1, type), draw(shape, 2, type)];
        const scale = 0.3;
        const hidden = causal
          ? call('triu', call('ones', [queries, keys], 11, null, 'cpu'), keys - queries + 1)
          : call('zeros', [queries, keys], 11, null, 'cpu');
        const masked = call(
          'masked_fill.Scalar',
          call('mul.Scalar', float(scores), scale),
          hidden,
          Number.NEGATIVE_INFINITY,
        );
        const p = call('_softmax', masked, -1, false);
        const factors = call('alitok::dropout', call('ones', shape, FLOAT, null, 'cpu'), rate, 9);
        const expected = call('mul.Tensor', p, factors);
        const through = call('_softmax_backward_data', call('mul.Tensor', float(dp), factors), p, -1, FLOAT);
        // Masked keys and rows after the last key have no effect, whatever their values.
        for (const x of [scores, dp]) call('masked_fill_.Scalar', x, hidden, Number.NaN);
        const wide = (x: TensorId) => call('constant_pad_nd', x, [0, behind], Number.NaN);
        const zeros = (x: TensorId) => call('constant_pad_nd', x, [0, behind], 0);
        const found = inBothOrders(() => {
          const y = wide(scores);
          emulated('attention_weights', y, keys, causal, scale, rate, 9);
          return y;
        });
        expect(error(found, zeros(expected))).toBeLessThan(LIMIT[type]);
        const [again, ds] = inBothOrders<TensorId[]>(() => {
          const both = [scores, dp].map(wide);
          emulated('attention_weights_grad', ...both, keys, causal, scale, rate, 9);
          return both;
        });
        expect(error(again, zeros(expected))).toBeLessThan(LIMIT[type]);
        expect(error(ds, zeros(call('mul.Scalar', through, scale)))).toBeLessThan(LIMIT[type]);
      },
    );

    it.each([
      [2, 5, 3, 48, 8],
      [1, 8, 2, 64, 8],
      [3, 1, 1, 6, 4],
    ])('put heads [%i, %i, %i, %i] together in %i rows', (batch, tokens, heads, width, rows) => {
      const x = call('select.int', draw([batch, tokens, 3, heads, width], 1, type), 2, 1);
      const y = inBothOrders(() => emulated('heads_first', x, rows));
      const expected = call('constant_pad_nd', call('permute', x, [0, 2, 1, 3]), [0, 0, 0, rows - tokens], 0);
      expect(native.shape(y)).toEqual(native.shape(expected));
      expect(values(y)).toEqual(values(call('contiguous', expected)));
    });
  });

  it('keep NaN and infinities', () => {
    const x = native.fromArray(Float32Array.from([1, Number.NaN, 3, 4]), [1, 4], 'cpu');
    const half = call('to.dtype', x, HALF);
    for (const y of [emulated('dropout', half, 0.5, 3, false), emulated('dropout', x, 0.5, 3, false)])
      expect(Number.isNaN(values(y)[1])).toBe(true);
    const ones = call('ones', [4], FLOAT, null, 'cpu');
    expect([...values(emulated('rms_norm', x, ones, 1e-5, true))].every(Number.isNaN)).toBe(true);
    const large = native.fromArray(Float32Array.from([3e38, -3e38, 0, 0]), [1, 4], 'cpu');
    expect([...values(emulated('layer_norm', large, ones, ones, 1e-5, false))].every(Number.isNaN)).toBe(
      true,
    );
    const largest = native.fromArray(Float32Array.of(Number.POSITIVE_INFINITY, 3.4e38), [2], 'cpu');
    expect([...values(emulated('dropout', call('to.dtype', largest, HALF), 0, 1, false))]).toEqual([
      Number.POSITIVE_INFINITY,
      Number.POSITIVE_INFINITY,
    ]);
  });

  it('round many tensors at once, like PyTorch', () => {
    const sizes = [1, 7, 4096, 4097, 0, 10_000, ...new Array(100).fill(3)];
    const all = sizes.map((size, i) => draw([size], i));
    const rounded = inBothOrders<TensorId[]>(() => emulated('round_all', all));
    rounded.forEach((x, i) => {
      expect(values(x)).toEqual(values(call('to.dtype', all[i], HALF)));
    });
  });

  it('apply dropout with bfloat16 output for layers', () => {
    const x = draw([33], 1);
    const y = inBothOrders(() => emulated('dropout', x, 0.3, 77, true));
    expect(values(y)).toEqual(values(call('to.dtype', call('alitok::dropout', x, 0.3, 77), HALF)));
  });

  describe('a decoding step', () => {
    const [layers, d, hidden, heads, longest] = [2, 96, 256, 2, 70];
    const width = d / heads;

    it.each([
      ['float32', 0],
      ['float32', 1],
      ['float32', 69],
      ['bfloat16', 0],
      ['bfloat16', 41],
    ] as [Type, number][])('in %s at position %i', (type, at) => {
      const rows = 3;
      const scaled = (shape: number[], seed: number) => call('mul.Scalar', draw(shape, seed), 0.2);
      const as = (x: TensorId) => call('to.dtype', x, TYPES[type]);
      const [x, cos, sin] = [
        draw([rows, 1, d], 1),
        draw([longest, width / 2], 2),
        draw([longest, width / 2], 3),
      ];
      const blocks = Array.from({ length: layers }, (_, i) => ({
        caches: [4, 5].map((seed) => draw([rows, longest, heads, width], seed + 100 * i, type)),
        norms: [d, width, width, d].map((n, j) => draw([n], 10 + j + 100 * i)),
        weights: [
          [3 * d, d],
          [d, d],
          [hidden, d],
          [hidden, d],
          [d, hidden],
        ].map((shape, j) => as(scaled(shape, 20 + j + 100 * i))),
        biases: [as(scaled([3 * d], 30 + i)), as(scaled([d], 40 + i)), null, null, null],
      }));
      const last = draw([d], 50);
      const norms = [...blocks.flatMap((block) => block.norms), last];
      const caches = (widen: boolean) =>
        blocks.flatMap((block) => block.caches.map((c) => (widen ? float(c) : call('clone', c))));
      const position = () => native.fromArray(Int32Array.of(at), [1], 'cpu');
      // The CPU uses w1 and w3 separately, and float32.
      const kept = caches(true);
      const wide = (list: (TensorId | null)[]) => list.map((x) => (x === null ? null : float(x)));
      const none = (count: number) => new Array(count * layers).fill(null);
      const expected = call(
        'alitok::generator_step',
        x,
        cos,
        sin,
        position(),
        kept,
        norms,
        wide(blocks.flatMap((b) => b.weights)),
        none(5),
        wide(blocks.flatMap((b) => b.biases)),
        1e-5,
      );
      const joined = blocks.flatMap(({ weights: [qkv, proj, w1, w3, w2] }) => [
        qkv,
        proj,
        call('cat', [w1, w3], 0),
        w2,
      ]);
      const found = inBothOrders<TensorId[]>(() => {
        const own = caches(false);
        const biases = blocks.flatMap(({ biases: [qkv, proj] }) => [qkv, proj, null, null]);
        const y = emulated(
          'generator_step',
          x,
          cos,
          sin,
          position(),
          own,
          norms,
          joined,
          none(4),
          biases,
          1e-5,
        );
        return [y, ...own];
      });
      const limit = type === 'float32' ? 5e-6 : 2e-2;
      expect(error(found[0], expected)).toBeLessThan(limit);
      kept.forEach((cache, i) => {
        expect(error(found[i + 1], cache)).toBeLessThan(limit);
      });
    });

    it.each([
      ['everything', 1, 0, 1],
      ['the most likely', 0, 0, 1],
      ['a few', 0.8, 5, 1],
      ['a share', 1.2, 0, 0.7],
      ['a share of a few', 1, 40, 0.6],
      ['one of all', 1, 1, 1],
    ])('draws of %s as the CPU does, with guidance and without', (_, temperature, top_k, top_p) => {
      const [images, entries, steps, at] = [9, 1031, 4, 2];
      const state = () => ({
        position: native.fromArray(Int32Array.of(at), [1], 'cpu'),
        codes: call('zeros', [images, steps], 3, null, 'cpu'),
      });
      const uniforms = call('sigmoid', draw([steps, images], 2));
      for (const guided of [false, true]) {
        const rows = guided ? 2 * images : images;
        const logits = draw([rows, entries], 1);
        // Equal weights; the first are selected as the largest.
        call('copy_', call('narrow', logits, 1, 700, 300), call('zeros', [rows, 300], FLOAT, null, 'cpu'));
        const scales = guided ? draw([steps], 3) : null;
        const run = (name: string) => {
          const { position, codes } = state();
          const ids = call('zeros', [rows], 3, null, 'cpu');
          call(name, logits, uniforms, scales, position, ids, codes, temperature, top_k, top_p);
          return [ids, codes, position].map((x) => [...native.read(x)]);
        };
        emulated('set_backwards', true);
        const backwards = run('alitok_emulated::draw_step');
        emulated('set_backwards', false);
        const found = run('alitok_emulated::draw_step');
        expect(found).toEqual(backwards);
        expect(found).toEqual(run('alitok::draw_step'));
        expect(found[2]).toEqual([at + 1]);
      }
    });

    it('selects the first NaN, or else the first infinity', () => {
      const rows = [
        [1, Number.NaN, 3, Number.NaN],
        [1, 2, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
        [Number.NEGATIVE_INFINITY, 5, 5, 1],
      ];
      const logits = native.fromArray(Float32Array.from(rows.flat()), [3, 4], 'cpu');
      for (const name of ['alitok', 'alitok_emulated'])
        for (const temperature of [0, 1]) {
          const [position, ids] = [call('zeros', [1], 3, null, 'cpu'), call('zeros', [3], 3, null, 'cpu')];
          const codes = call('zeros', [3, 1], 3, null, 'cpu');
          const uniforms = call('zeros', [1, 3], FLOAT, null, 'cpu');
          call(`${name}::draw_step`, logits, uniforms, null, position, ids, codes, temperature, 0, 1);
          expect([...native.read(ids)]).toEqual([1, 2, 1]);
        }
    });
  });
});
