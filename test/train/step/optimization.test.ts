import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { TrainingError } from '../../../src/errors.js';
import type { LossAndMore } from '../../../src/nn/gradients.js';
import { constant } from '../../../src/nn/initializers.js';
import { type Parameter, Parameters } from '../../../src/nn/parameters.js';
import { Random } from '../../../src/random.js';
import { NonFiniteError } from '../../../src/train/step/non-finite.js';
import { Optimization, type Step } from '../../../src/train/step/optimization.js';
import { describeEngines } from '../../support/engines.js';

const START = [1, -2, 0.5];

/** An optimization of vectors with these initial values, and a function that makes a step with a loss. */
function setUp(starts: readonly number[][], { parts = 1, clip_norm = 0 } = {}) {
  const parameters = new Parameters();
  const trained = starts.map((start, i) =>
    parameters.scope().parameter(`w${i}`, [start.length], constant(Float32Array.from(start))),
  );
  parameters.initialize(Random.of(0));
  const options = { beta1: 0.9, beta2: 0.99, weight_decay: 0.1, clip_norm };
  const optimization = new Optimization(trained, { parts }, options);
  optimization.initialize();
  const step = (loss: (part: number) => LossAndMore, more: Partial<Step> = {}) =>
    optimization.step({ step: 1, lr: 0.1, loss, batch: () => ({}), ...more });
  return { trained, optimization, step };
}

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];

/** A loss with this value and these gradients, independent of the parameters. */
const withGradients = (trained: readonly Parameter[], gradients: readonly Float32Array[], value = 0) =>
  tf.customGrad((..._inputs) => ({
    value: tf.scalar(value),
    gradFunc: () => gradients.map((gradient) => tf.tensor1d(gradient)),
  }))(...trained.map((p) => p.value)) as tf.Scalar;

function expectNear(actual: number[], expected: number[], tolerance = 1e-6) {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((x, i) => {
    expect(Math.abs(x - expected[i])).toBeLessThan(tolerance);
  });
}

describeEngines('an optimization step', () => {
  it('leaves a parameter and its moments unchanged if the loss does not depend on it', async () => {
    const { trained, optimization, step } = setUp([START, START], { parts: 2 });
    const [unreached, w] = trained;
    for (let i = 0; i < 3; i++) {
      const { grad_norm } = await step(() => ({ loss: w.value.sum() as tf.Scalar }));
      expect(grad_norm).toBeCloseTo(Math.sqrt(3), 5);
    }
    expect(values(unreached.value)).toEqual(START);
    for (const moment of ['m.w0', 'v.w0'])
      expect(values(optimization.state.get(moment)!.value)).toEqual([0, 0, 0]);
    expect(values(w.value)[0]).toBeLessThan(START[0]);
  });

  it('changes nothing if the loss depends on no parameter', async () => {
    const { trained, step } = setUp([START], { clip_norm: 1 });
    expect(await step(() => ({ loss: tf.scalar(2) }))).toEqual({ loss: 2, grad_norm: 0 });
    expect(values(trained[0].value)).toEqual(START);
  });

  it('over several micro-batches equals that of the whole batch', async () => {
    const data = tf.tensor2d([1, 2, 3, 4, 5, 6, -1, 0, 2, 3, 3, 3], [4, 3]);
    const after = async (parts: number) => {
      const { trained, step } = setUp([START], { parts });
      const rows = 4 / parts;
      const { loss, grad_norm } = await step((part) => ({
        loss: data
          .slice([part * rows, 0], [rows, 3])
          .mul(trained[0].value)
          .sum(1)
          .square()
          .mean() as tf.Scalar,
      }));
      return [...values(trained[0].value), grad_norm, loss];
    };
    const whole = await after(1);
    for (const parts of [2, 4]) expectNear(await after(parts), whole, 1e-3);
  });

  it('clips the gradient to a global norm', async () => {
    // Adam's first update does not depend on the gradient's scale, so the moments are compared.
    const { trained, optimization, step } = setUp([START], { clip_norm: 1 });
    const along = (gradient: number[]) =>
      step(() => ({ loss: withGradients(trained, [Float32Array.from(gradient)]) }));
    expect((await along([3, 0, 4])).grad_norm).toBeCloseTo(5, 5);
    expectNear(values(optimization.state.get('m.w0')!.value), [0.06, 0, 0.08]);
    await along([0.3, 0, 0]);
    expectNear(values(optimization.state.get('m.w0')!.value), [0.084, 0, 0.072]);
  });

  it('reports its metrics before the update, and only if they are finite', async () => {
    const { trained, optimization, step } = setUp([START]);
    const seen: unknown[] = [];
    const beforeUpdate: Step['beforeUpdate'] = (metrics) => {
      seen.push(metrics, values(trained[0].value), optimization.steps);
    };
    await step(() => ({ loss: trained[0].value.sum() as tf.Scalar }), { beforeUpdate });
    expect(seen).toEqual([{ loss: -0.5 }, START, 0]);
    const bad = { loss: tf.scalar(Number.NaN) };
    await expect(step(() => bad, { beforeUpdate })).rejects.toThrow(NonFiniteError);
    expect(seen).toHaveLength(3);
  });

  it('refuses a non-finite loss and reports it; an unbounded scalar may be infinite', async () => {
    const { trained, optimization, step } = setUp([START]);
    const before = tf.memory().numTensors;
    const batch = () => ({ images: ['a', 'b', 'c', 'd', 'e'] });
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const loss = () => ({ loss: tf.scalar(value), psnr: tf.scalar(Number.POSITIVE_INFINITY) });
      const made = step(loss, { step: 7, lr: 0.25, batch, unbounded: ['psnr'] });
      await expect(made).rejects.toThrow(TrainingError);
      await expect(made).rejects.toThrow(
        /^step 7 was not made: .*\(loss \S+, gradient norm \S+, learning rate 0\.25; images a, b, c, d, … \(5 in all\)\)$/,
      );
    }
    expect([values(trained[0].value), optimization.steps]).toEqual([START, 0]);
    const infinite = () => ({ loss: tf.scalar(1), psnr: tf.scalar(Number.POSITIVE_INFINITY) });
    expect((await step(infinite, { unbounded: ['psnr'] })).psnr).toBe(Number.POSITIVE_INFINITY);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('refuses a non-finite gradient anywhere in any parameter', async () => {
    const sizes = [1, 7, 70_001];
    const starts = sizes.map((size) => new Array(size).fill(0));
    const { trained, optimization, step } = setUp(starts);
    const gradient = (bad?: { tensor: number; at: number; value: number }) =>
      step(() => {
        const gradients = sizes.map((size) => new Float32Array(size).fill(1));
        if (bad) gradients[bad.tensor][bad.at] = bad.value;
        return { loss: withGradients(trained, gradients) };
      });
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e30])
      for (const [tensor, size] of sizes.entries())
        for (const at of [0, size >> 1, size - 1])
          await expect(gradient({ tensor, at, value }), `${value} at ${at} of ${size}`).rejects.toThrow(
            NonFiniteError,
          );
    expect(optimization.steps).toBe(0);
    expect((await gradient()).grad_norm).toBeCloseTo(Math.sqrt(70_009), 3);
  });
});
