import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import * as ops from '../../../src/engine/ops/index.js';
import { operationsOf } from '../../../src/engine/tensorflow/backend.js';
import type { NodeBackend } from '../../../src/engine/tensorflow/binding.js';
import { EngineError } from '../../../src/errors.js';
import { Generator } from '../../../src/models/generator/generator.js';
import { canRun, openTested } from '../../support/engines.js';

const SIZES = { width: 64, layers: 2, heads: 4, classes: 10, codebook_size: 96, prefix_tokens: 3, grid: 3 };
const STEP = { lr: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, step: 1, gradientScale: 1 };

describe.runIf(canRun('tensorflow'))('kernels of the tensorflow engine', () => {
  beforeAll(() => openTested('tensorflow'));
  const backend = () => tf.backend() as unknown as NodeBackend;
  /** Tensors that TensorFlow holds. */
  const held = () => (backend().binding as unknown as { getNumOfTensors(): number }).getNumOfTensors();

  const state = (make: () => tf.Tensor) => ({
    parameter: make(),
    gradient: tf.fill([8], 1),
    m: make(),
    v: tf.fill([8], 1),
  });
  const update = (tensors: ops.AdamWTensors, attributes = STEP) => ops.adamW([tensors], attributes)[0];

  it('AdamW never writes to arrays of JavaScript, whose memory TensorFlow may share', () => {
    // TensorFlow shares the memory of arrays at a multiple of 64 bytes: one of these 16 is.
    const buffer = new Float32Array(256).fill(2);
    const before = buffer.slice();
    for (let offset = 0; offset < 16; offset++) {
      const own = state(() => tf.tensor1d(buffer.subarray(4 * offset, 4 * offset + 8)));
      const results = update(own);
      expect(results[0].dataSync()[0]).not.toBe(2);
      tf.dispose([...results, ...Object.values(own)]);
    }
    expect(buffer).toEqual(before);
  });

  it('AdamW leaves tensors alone that something else uses, and updates its own in place', () => {
    const first = update(state(() => tf.fill([8], 2)));
    const clone = first[0].clone();
    const values = clone.dataSync().slice();
    const [parameter, m, v] = first;
    const second = update({ parameter, gradient: tf.fill([8], 1), m, v }, { ...STEP, step: 2 });
    expect(clone.dataSync()).toEqual(values);
    expect(second[0].dataSync()[0]).not.toBe(values[0]);
    expect(second[0].dataId).not.toBe(parameter.dataId);
    expect(second.slice(1).map((x) => x.dataId)).toEqual([m.dataId, v.dataId]);
  });

  it('numbers that change in every step are not kept', () => {
    const x = tf.ones([3, 4]) as tf.Tensor2D;
    let own = state(() => tf.fill([8], 2));
    const step = (i: number) => {
      tf.tidy(() => void ops.dropout(x, 0.5, i).dataSync());
      const [parameter, m, v] = update(own, { ...STEP, lr: 1 / i, step: i, gradientScale: 0.5 + 1 / i });
      tf.dispose(own);
      own = { parameter, gradient: tf.fill([8], 1), m, v };
    };
    for (let i = 1; i < 4; i++) step(i);
    const after = held();
    for (let i = 4; i < 50; i++) step(i);
    expect(held()).toBe(after);
  });

  it('sampling reads nothing back between its steps', () => {
    const generator = new Generator(SIZES);
    for (const p of generator.parameters)
      p.value = tf.randomNormal(p.shape as number[], 0, 0.1, 'float32', 1);
    const cache = generator.createCache(2);
    expect(cache.fused).toBe(true);
    const state = {
      position: tf.tensor1d([0], 'int32'),
      ids: tf.tensor1d([97, 98], 'int32'),
      codes: tf.fill([2, 3], 0, 'int32') as tf.Tensor2D,
      uniforms: tf.fill([3, 2], 0.5) as tf.Tensor2D,
    };
    const read = vi.spyOn(backend(), 'readSync');
    for (let i = 0; i < 3; i++)
      ops.drawStep(generator.stepAt(state.position, state.ids, cache), state, {
        temperature: 1,
        top_k: 0,
        top_p: 1,
      });
    expect(read).not.toHaveBeenCalled();
    read.mockRestore();
    expect([...state.position.dataSync()]).toEqual([3]);
    cache.dispose();
    generator.dispose();
  });

  it('the transposed weight of a frozen layer is made once, and again if the weight changes', () => {
    const run = vi.spyOn(operationsOf(backend()), 'run');
    const x = tf.ones([1, 8, 8, 3]) as tf.Tensor4D;
    const zeros = () => tf.fill([4, 3, 3, 3], 0);
    const weights = { parameter: tf.fill([4, 3, 3, 3], 1), gradient: zeros(), m: zeros(), v: zeros() };
    const y = (weight: tf.Tensor) => ops.frozenConv2d(x, weight, tf.zeros([4])).dataSync()[9 * 4];
    const wanted = 27 * (1 - STEP.lr * STEP.weightDecay);
    for (let i = 0; i < 3; i++) expect(y(weights.parameter)).toBe(27);
    expect(run.mock.calls.filter(([name]) => name === 'Transpose')).toHaveLength(1);
    const [updated] = update(weights); // in place, in the same data
    expect(updated.dataId).toBe(weights.parameter.dataId);
    expect(y(updated)).toBeCloseTo(wanted, 4);
    run.mockRestore();
  });

  it('an error of TensorFlow becomes one line', () => {
    const operations = operationsOf(backend());
    const fails = () => operations.run('MatMul', [operations.ints([1]), operations.ints([1])], [], 1);
    expect(fails).toThrow(EngineError);
    expect(fails).toThrow(/^TensorFlow: MatMul: [^\n]+$/);
  });
});
