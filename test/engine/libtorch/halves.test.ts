import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as tf from '@tensorflow/tfjs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { openCase } from '../../../src/bench/cases.js';
import { parseConfig } from '../../../src/config/schema.js';
import { openEngine } from '../../../src/engine/index.js';
import { type LibtorchBackend, ScalarType, type TensorData } from '../../../src/engine/libtorch/backend.js';
import * as ops from '../../../src/engine/ops/index.js';
import { inFloat32 } from '../../../src/engine/ops/precision.js';
import { Generator } from '../../../src/models/generator/generator.js';
import { tokenizerGeometry } from '../../../src/models/geometry.js';
import { type Observed, pretendCuda } from '../../aten/pretend-cuda.js';
import { loadEmulated } from '../../cuda/emulate.js';
import { relativeError } from '../../golden/golden.js';
import { canRun } from '../../support/engines.js';
import { TOKENIZER, TRANSFORMER } from '../../support/small-sizes.js';

// Outputs of layers in bfloat16 that have not been needed in float32 yet, on a pretended CUDA device.

type Precision = 'float32' | 'bf16';

/** Tolerance between numbers that were rounded to bfloat16 at different places. */
const ROUNDING = 2e-2;

describe.skipIf(!canRun('libtorch'))('numbers in bfloat16', () => {
  let seen: Observed;
  const backend = () => tf.backend() as LibtorchBackend;
  const open = async (ownKernels = true, precision: Precision = 'bf16') => {
    await openEngine('libtorch', { device: 'cpu', precision });
    await loadEmulated();
    seen = pretendCuda({}, { ownKernels });
  };
  beforeEach(() => open(), 300_000);

  const draw = (seed: number, shape: number[]) => tf.randomNormal(shape, 0, 1, 'float32', seed);
  /** A tensor with x's numbers only in bfloat16. */
  const halfOf = (x: tf.Tensor): tf.Tensor => {
    const id = backend().call('to.dtype', backend().id(x), ScalarType.bfloat16);
    return tf.engine().makeTensorFromTensorInfo(backend().wrapHalf(id, x.shape));
  };
  const drawHalf = (seed: number, shape: number[]) => halfOf(draw(seed, shape));
  /** The same numbers in float32 from the start. */
  const fullOf = (x: tf.Tensor): tf.Tensor => tf.tensor(x.dataSync(), x.shape);
  const isHalf = (x: tf.Tensor) => backend().isHalf(x);
  const representations = (x: tf.Tensor) => {
    const { full, half } = (x.dataId as TensorData).tensors;
    return { full: full >= 0, half: half >= 0 };
  };
  const values = (x: tf.Tensor) => [...x.dataSync()];
  const conversions = () => seen.calls.get('to.dtype') ?? 0;
  /** The result of `f`, which must not convert anything. */
  const withoutConversions = <T>(f: () => T): T => {
    const before = conversions();
    const result = f();
    expect(conversions()).toBe(before);
    return result;
  };

  describe('a tensor', () => {
    it('is read without ever existing in float32', async () => {
      const x = halfOf(tf.tensor1d([1, 2.5, 1 + 2 ** -12]));
      expect(x.dtype).toBe('float32');
      withoutConversions(() => expect(values(x)).toEqual([1, 2.5, 1]));
      expect([...(await x.data())]).toEqual([1, 2.5, 1]);
      expect(representations(x)).toEqual({ full: false, half: true });
    });

    it('gets its float32 numbers when first needed, and keeps them', () => {
      const x = drawHalf(1, [8]);
      const before = conversions();
      const id = backend().id(x);
      expect(backend().id(x)).toBe(id);
      expect(conversions()).toBe(before + 1);
      expect(representations(x)).toEqual({ full: true, half: true });
    });

    it('is still used in bfloat16 after being read in float32', () => {
      const x = drawHalf(1, [8]);
      const half = backend().either(x);
      backend().id(x);
      expect(isHalf(x)).toBe(true);
      expect([backend().either(x), backend().halfOf(x)]).toEqual([half, half]);
    });

    it('in float32 stays float32 with a bfloat16 copy beside it', () => {
      const x = draw(1, [8]);
      backend().halfOf(x);
      expect(isHalf(x)).toBe(false);
      expect(backend().either(x)).toBe(backend().id(x));
    });

    it.each([
      ['bfloat16', (x: tf.Tensor) => x],
      ['both types', (x: tf.Tensor) => void backend().id(x)],
    ])('of %s leaves nothing behind', (_, use) => {
      const [tensors, data] = [backend().native.count(), backend().numDataIds()];
      const source = draw(1, [8]);
      const x = halfOf(source);
      use(x);
      const alias = x.clone();
      x.dispose();
      expect(values(alias)).toHaveLength(8);
      tf.dispose([source, alias]);
      expect([backend().native.count(), backend().numDataIds()]).toEqual([tensors, data]);
    });

    /** Runs garbage collection. */
    const collect = async (until: () => boolean) => {
      setFlagsFromString('--expose_gc');
      const run = runInNewContext('gc') as () => void;
      for (let i = 0; i < 50 && !until(); i++) {
        run();
        await new Promise((done) => setTimeout(done, 10));
      }
    };

    it('that JavaScript has garbage-collected is freed, in either dtype', async () => {
      const kept = draw(1, [8]);
      const spy = vi.spyOn(backend().native, 'free');
      const freed = () => spy.mock.calls.map(([id]) => id);
      /** The PyTorch tensors of a few unreachable tensors. */
      const lose = () => {
        const half = () => backend().call('to.dtype', backend().id(kept), ScalarType.bfloat16);
        const [alone, withFull] = [half(), half()].map((id) => backend().wrapHalf(id));
        const withHalf = backend().wrap(backend().call('clone', backend().id(kept)), 'float32');
        return [
          backend().either(alone),
          backend().either(withFull),
          backend().id(withFull),
          backend().id(withHalf),
          backend().halfOf(withHalf),
        ];
      };
      const lost = lose();
      await collect(() => lost.every((id) => freed().includes(id)));
      expect(freed()).toEqual(expect.arrayContaining(lost));
      spy.mockRestore();
      expect(values(kept)).toHaveLength(8);
    });

    it('from another backend outlives its original data', async () => {
      await tf.setBackend('cpu');
      const x = tf.tensor1d([1, 2]);
      await tf.setBackend('libtorch');
      tf.engine().moveData(backend(), x.dataId);
      const lost = new WeakRef({});
      await collect(() => lost.deref() === undefined);
      expect(values(x.add(x))).toEqual([2, 4]);
    });

    it('that is written to has only the new numbers', () => {
      const cache = tf.variable(drawHalf(1, [1, 4, 1, 8])) as tf.Variable<tf.Rank.R4>;
      const update = drawHalf(2, [1, 1, 1, 8]) as tf.Tensor4D;
      const expected = values(cache);
      expected.splice(8, 8, ...values(update));
      withoutConversions(() => backend().either(cache));
      ops.cacheWrite(cache, update, 1);
      expect(isHalf(cache)).toBe(false);
      expect(values(cache)).toEqual(expected);
      expect([...backend().native.read(backend().halfOf(cache))]).toEqual(expected);
      expect(representations(update).full).toBe(false);
    });

    it('is converted to float32 before its bfloat16 numbers are dropped', () => {
      const x = drawHalf(1, [8]);
      const expected = values(x);
      backend().overwritten(x);
      expect(representations(x)).toEqual({ full: true, half: false });
      expect(values(x)).toEqual(expected);
    });
  });

  describe('operations that only move numbers do not convert them', () => {
    it.each<[string, (x: tf.Tensor) => tf.Tensor | tf.Tensor[]]>([
      ['reshape', (x) => x.reshape([8, 3])],
      ['expandDims', (x) => x.expandDims(1)],
      ['transpose', (x) => x.transpose()],
      ['slice', (x) => x.slice([1, 2], [2, 3])],
      ['stridedSlice', (x) => x.stridedSlice([1, 2], [3, 5], [1, 1])],
      ['split', (x) => tf.split(x, [2, 4], 1)],
      ['unstack', (x) => tf.unstack(x, 1)],
      ['clone', (x) => x.clone()],
      ['concat', (x) => tf.concat([x, x.slice([1])])],
      ['stack', (x) => tf.stack([x, x], 1)],
    ])('%s', (_, run) => {
      const x = drawHalf(1, [4, 6]);
      const found = [withoutConversions(() => run(x))].flat();
      const expected = [run(fullOf(x))].flat();
      found.forEach((y, i) => {
        expect(representations(y)).toEqual({ full: false, half: true });
        expect(y.shape).toEqual(expected[i].shape);
        expect(values(y)).toEqual(values(expected[i]));
        expect(isHalf(expected[i])).toBe(false);
      });
    });

    it.each<[string, (...x: tf.Tensor[]) => tf.Tensor]>([
      ['concat', (...x) => tf.concat(x)],
      ['stack', (...x) => tf.stack(x)],
    ])('%s of both types is float32', (_, run) => {
      const [x, y] = [drawHalf(1, [4]), draw(2, [4])];
      for (const joined of [run(x, y), run(y, x)]) expect(isHalf(joined)).toBe(false);
      expect(values(run(x, y))).toEqual(values(run(fullOf(x), y)));
    });
  });

  describe('sums', () => {
    it('of two bfloat16 tensors are in bfloat16', () => {
      const [x, y] = [drawHalf(1, [4, 8]), drawHalf(2, [8])];
      const sum = withoutConversions(() => x.add(y));
      expect(isHalf(sum)).toBe(true);
      expect(values(sum)).toEqual(values(halfOf(fullOf(x).add(fullOf(y)))));
    });

    it('with float32 numbers are float32, and nothing is converted before', () => {
      const [x, y] = [drawHalf(1, [4, 8]), draw(2, [8])];
      for (const sum of withoutConversions(() => [x.add(y), y.add(x)])) {
        expect(isHalf(sum)).toBe(false);
        expect(values(sum)).toEqual(values(fullOf(x).add(y)));
      }
    });

    it('with a single float32 number are float32 too', () => {
      const x = drawHalf(1, [8]);
      for (const sum of [x.add(0.001), tf.scalar(0.001).add(x)])
        expect(values(sum)).toEqual(values(fullOf(x).add(0.001)));
    });

    it('are float32 if everything must be exact', () => {
      const [x, y] = [drawHalf(1, [8]), drawHalf(2, [8])];
      const sum = inFloat32(() => x.add(y));
      expect(isHalf(sum)).toBe(false);
      expect(values(sum)).toEqual(values(fullOf(x).add(fullOf(y))));
    });

    it.each(['add.Tensor', 'sub.Tensor', 'mul.Tensor', 'div.Tensor', 'maximum'])(
      'the pretended device promotes dtypes in %s like CUDA, and refuses the rest',
      (name) => {
        const [x, y] = [drawHalf(1, [8]), draw(2, [8])];
        const run = (a: tf.Tensor) => backend().call(name, backend().either(a), backend().either(y));
        if (!/^(add|sub|mul)/.test(name)) return expect(() => run(x)).toThrow(/a CUDA kernel would refuse/);
        const result = (a: tf.Tensor) => [...backend().native.read(run(a))];
        expect(result(x)).toEqual(result(fullOf(x)));
      },
    );

    it('over an axis are float32, and nothing is converted before', () => {
      const x = drawHalf(1, [4, 8]);
      const sum = withoutConversions(() => x.sum(0));
      expect(isHalf(sum)).toBe(false);
      expect(relativeError(sum.dataSync(), fullOf(x).sum(0).dataSync())).toBeLessThan(1e-6);
    });
  });

  it.each<[string, (x: tf.Tensor) => tf.Tensor]>([
    ['mul', (x) => x.mul(x)],
    ['sub', (x) => x.sub(draw(2, [4, 6]))],
    ['cast', (x) => x.mul(10).toInt()],
    ['zerosLike', (x) => tf.zerosLike(x)],
    ['pad', (x) => x.pad([[1, 0] as [number, number], [0, 2]])],
    ['stridedSlice in steps', (x) => x.stridedSlice([0, 0], [4, 6], [2, 3])],
    ['addN', (x) => tf.addN([x, x, x])],
    ['matMul', (x) => tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, false, true)],
    ['what tfjs does itself', (x) => tf.bitwiseAnd(x.toInt(), x.toInt())],
  ])('%s works in float32', (_, run) => {
    const x = drawHalf(1, [4, 6]);
    const y = run(x);
    expect(isHalf(y)).toBe(false);
    expect(values(y)).toEqual(values(run(fullOf(x))));
  });

  describe('layers', () => {
    const shapes = { x: [2, 6, 16], weight: [24, 16], bias: [24] };
    const inputs = () => Object.values(shapes).map((shape, i) => draw(i + 1, shape));
    const run = (name: string, given: tf.NamedTensorMap, attributes: tf.NamedAttrMap = {}) =>
      [tf.engine().runKernel(name, given, attributes)].flat() as tf.Tensor[];
    const heads = (x: tf.Tensor[]) => x as tf.Tensor4D[];
    const results: Record<string, () => tf.Tensor[]> = {
      linear: () => {
        const [x, weight, bias] = inputs();
        return [ops.linear(x, weight, bias)];
      },
      'gradients of linear': () => {
        const [x, weight] = inputs();
        return run('alitok.LinearGrad', { dy: draw(4, [12, 24]), x, weight });
      },
      'linear with a packed weight': () => {
        const [x, weight, bias] = inputs();
        return [ops.packedLinear(x, ops.packWeight(weight, 'bf16'), bias)];
      },
      attention: () => {
        const [q, k, v] = heads([1, 2, 3].map((seed) => draw(seed, [2, 6, 2, 16])));
        return [ops.attention(q, k, v, { causal: true })];
      },
      'gradients of attention': () => {
        const [dy, q, k, v] = heads([1, 2, 3, 4].map((seed) => draw(seed, [2, 6, 2, 16])));
        const attributes = { causal: true, keyLength: 6, dropout: 0, seed: 0 };
        return run('alitok.AttentionGrad', { dy, q, k, v }, attributes);
      },
    };
    const FULL: Record<string, number[]> = { 'gradients of linear': [1] }; // accumulated for a weight

    it.each(Object.keys(results))('give bfloat16: %s', async (name) => {
      const found = results[name]();
      found.forEach((y, i) => {
        expect(isHalf(y)).toBe(!FULL[name]?.includes(i));
      });
      await open(false);
      results[name]().forEach((y, i) => {
        expect(isHalf(y)).toBe(false);
        expect(y.shape).toEqual(found[i].shape);
        expect(values(found[i])).toEqual(values(y)); // the same numbers as when rounded before
      });
    });

    it('give float32 if products are in float32', async () => {
      await open(true, 'float32');
      for (const result of Object.values(results)) for (const y of result()) expect(isHalf(y)).toBe(false);
    });

    it('attention with dropout is in bfloat16 too', () => {
      const options = { causal: true, dropout: 0.1, seed: 1 };
      const given = heads([1, 2, 3].map((seed) => drawHalf(seed, [2, 6, 2, 16])));
      const [q, k, v] = heads(given.map(fullOf));
      const y = ops.attention(given[0], given[1], given[2], options);
      expect(isHalf(y)).toBe(true);
      expect(values(y)).toEqual(values(ops.attention(q, k, v, options)));
    });

    it.each(['bfloat16', 'float32'])('gelu keeps the dtype %s, and so does its gradient', (type) => {
      const x = type === 'bfloat16' ? drawHalf(1, [4, 8]) : draw(1, [4, 8]);
      const dy = draw(2, [4, 8]);
      const y = ops.gelu(x);
      const [dx] = run('alitok.GeluGrad', { dy, x });
      expect([isHalf(y), isHalf(dx)]).toEqual([type === 'bfloat16', type === 'bfloat16']);
      const exact = fullOf(x);
      expect(relativeError(y.dataSync(), ops.gelu(exact).dataSync())).toBeLessThan(ROUNDING);
      const [expected] = run('alitok.GeluGrad', { dy, x: exact });
      expect(relativeError(dx.dataSync(), expected.dataSync())).toBeLessThan(ROUNDING);
    });
  });

  it('nothing is converted between layers, and gradients match float32 up to rounding', async () => {
    const shapes = [[4, 6, 16], [32, 16], [32], [16, 32], [16]];
    const gradients = () => {
      const given = shapes.map((shape, i) => draw(i + 1, shape));
      const factors = draw(9, shapes[0]);
      const run = (...tensors: tf.Tensor[]) => {
        const [x, w1, b1, w2, b2] = tensors;
        const y = x.add(ops.linear(ops.gelu(ops.linear(x, w1, b1)), w2, b2));
        return y.mul(factors).sum();
      };
      return tf.grads(run)(given);
    };
    const found = gradients();
    // x, two weights, two biases, and dy become bfloat16; the products return the weights' gradients in float32.
    expect(conversions()).toBe(6);
    await open(false);
    gradients();
    expect(conversions()).toBeGreaterThan(6);
    await open(true, 'float32');
    gradients().forEach((expected, i) => {
      expect(relativeError(found[i].dataSync(), expected.dataSync()), `${i}`).toBeLessThan(ROUNDING);
    });
  });

  describe('training the generator', () => {
    const CONFIG = parseConfig(
      {
        tokenizer: TOKENIZER,
        generator: { ...TRANSFORMER, classes: 12, dropout: 0 },
      },
      'test',
    );

    it.each([false, true])('a step converts less, activation checkpointing: %s', async (again) => {
      const generator_training = { ...CONFIG.generator_training, checkpoint_activations: again };
      const counts: number[] = [];
      for (const ownKernels of [false, true]) {
        await open(ownKernels);
        const training = openCase({ name: 'train', batch: 2 }, { ...CONFIG, generator_training });
        const before = [conversions(), backend().native.count()];
        await training.run();
        counts.push(conversions() - before[0]);
        training.dispose();
        expect(backend().native.count()).toBeLessThan(before[1]);
      }
      expect(counts[1]).toBeLessThan(counts[0]);
    });

    it('has the same gradients up to rounding', async () => {
      const gradients = async (ownKernels: boolean) => {
        await open(ownKernels);
        const { codebook_size } = CONFIG.tokenizer;
        const { prefix_tokens, grid } = tokenizerGeometry(CONFIG.tokenizer);
        const generator = new Generator({ ...CONFIG.generator, codebook_size, prefix_tokens, grid });
        const parameters = [...generator.parameters];
        parameters.forEach((p, i) => {
          p.value =
            p.shape.length === 1 ? tf.ones(p.shape as number[]) : draw(i + 1, p.shape as number[]).mul(0.1);
        });
        const integers = (shape: number[], below: number) =>
          tf.randomUniform(shape, 0, below, 'float32', 5).toInt();
        const codes = integers([2, generator.geometry.tokens], codebook_size) as tf.Tensor2D;
        const condition = tf.tensor1d([generator.conditionOf(1), generator.conditionOf(2)], 'int32');
        const loss = () => generator.loss(generator.forward(condition, codes), codes);
        const { value, grads } = tf.valueAndGrads(loss)(parameters.map((p) => p.value));
        return { names: parameters.map((p) => p.name), loss: value.dataSync()[0], grads };
      };
      const expected = await gradients(false);
      const found = await gradients(true);
      expect(found.loss).toBeCloseTo(expected.loss, 3);
      found.grads.forEach((gradient, i) => {
        expect(isHalf(gradient)).toBe(false);
        const error = relativeError(gradient.dataSync(), expected.grads[i].dataSync());
        expect(error, found.names[i]).toBeLessThan(ROUNDING);
      });
    });
  });
});
