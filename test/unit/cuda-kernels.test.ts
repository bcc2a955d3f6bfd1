import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import type { Argument, Native, TensorId } from '../../src/engine/libtorch/bridge.js';
import { Random } from '../../src/random.js';
import { loadEmulated } from '../cuda/emulate.js';

// Each kernel for CUDA devices, compiled for the processor from the same text, beside the operators of the CPU.

const BRIDGE = fileURLToPath(new URL('../../dist/engine/libtorch/bridge.node', import.meta.url));
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

  /** What an operator gives, which is the same to the last bit when its threads run in the opposite order. */
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
      const y = inBothOrders(() => emulated('dropout', x, 0.3, 77));
      const expected = call('to.dtype', call('alitok::dropout', float(x), 0.3, 77), TYPES[type]);
      expect(values(y)).toEqual(values(expected));
    });

    it('drop elements of a view that begins anywhere', () => {
      const x = call('narrow', draw([1000], 1, type), 0, 3, 501);
      const expected = call('alitok::dropout', float(x), 0.5, 5);
      expect(error(emulated('dropout', x, 0.5, 5), expected)).toBeLessThan(LIMIT[type]);
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

    it('give the gradient of norms of more rows than warps', () => {
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
      [5, 5, true, 0],
      [5, 5, true, 0.4],
      [3, 70, true, 0.1],
      [4, 33, false, 0.25],
    ])('weigh %i queries and %i keys, causal %s, dropout %f', (queries, keys, causal, rate) => {
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
      // What is hidden counts for nothing, whatever it is.
      for (const x of [scores, dp]) call('masked_fill_.Scalar', x, hidden, Number.NaN);
      const found = inBothOrders(() => {
        const y = call('clone', scores);
        emulated('attention_weights', y, causal, scale, rate, 9);
        return y;
      });
      expect(error(found, expected)).toBeLessThan(LIMIT[type]);
      const [again, ds] = inBothOrders<TensorId[]>(() => {
        const both = [call('clone', scores), call('clone', dp)];
        emulated('attention_weights_grad', ...both, causal, scale, rate, 9);
        return both;
      });
      expect(error(again, expected)).toBeLessThan(LIMIT[type]);
      expect(error(ds, call('mul.Scalar', through, scale))).toBeLessThan(LIMIT[type]);
    });
  });

  it('keep NaN and infinities', () => {
    const x = native.fromArray(Float32Array.from([1, Number.NaN, 3, 4]), [1, 4], 'cpu');
    const half = call('to.dtype', x, HALF);
    for (const y of [emulated('dropout', half, 0.5, 3), emulated('dropout', x, 0.5, 3)])
      expect(Number.isNaN(values(y)[1])).toBe(true);
    const ones = call('ones', [4], FLOAT, null, 'cpu');
    expect([...values(emulated('rms_norm', x, ones, 1e-5, true))].every(Number.isNaN)).toBe(true);
    const large = native.fromArray(Float32Array.from([3e38, -3e38, 0, 0]), [1, 4], 'cpu');
    expect([...values(emulated('layer_norm', large, ones, ones, 1e-5, false))].every(Number.isNaN)).toBe(
      true,
    );
    expect([
      ...values(
        emulated(
          'dropout',
          call(
            'to.dtype',
            native.fromArray(Float32Array.of(Number.POSITIVE_INFINITY, 3.4e38), [2], 'cpu'),
            HALF,
          ),
          0,
          1,
        ),
      ),
    ]).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
  });
});
