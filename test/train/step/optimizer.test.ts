import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { TrainingError } from '../../../src/errors.js';
import { AdamW } from '../../../src/nn/adamw.js';
import { Ema } from '../../../src/nn/ema.js';
import { constant } from '../../../src/nn/initializers.js';
import { Parameters } from '../../../src/nn/parameters.js';
import { Random } from '../../../src/random.js';
import { finiteNorm, sumGradients, update } from '../../../src/train/step/optimize.js';
import { describeEngines } from '../../support/engines.js';

const START = [1, -2, 0.5];
const SEEN = { step: 1, lr: 0.1, metrics: {}, batch: {} };

function setUp(options: Partial<ConstructorParameters<typeof AdamW>[1]> = {}) {
  const parameters = new Parameters();
  const w = parameters.scope().parameter('w', [3], constant(Float32Array.from(START)));
  parameters.initialize(Random.of(0));
  const optimizer = new AdamW([w], { beta1: 0.9, beta2: 0.99, weight_decay: 0.1, ...options });
  optimizer.initialize();
  return { parameters, w, optimizer };
}

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];

function expectNear(actual: number[], expected: number[], tolerance = 1e-6) {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((x, i) => {
    expect(Math.abs(x - expected[i])).toBeLessThan(tolerance);
  });
}

describeEngines('optimizer', () => {
  it('AdamW follows its formula over several steps', () => {
    const { w, optimizer } = setUp();
    const gradients = [
      [0.1, -0.3, 2],
      [0.2, 0.3, -1],
      [-0.5, 0, 0.7],
    ];
    const expected = START.map((start, i) => {
      let [x, m, v] = [start, 0, 0];
      gradients.forEach((g, t) => {
        m = 0.9 * m + 0.1 * g[i];
        v = 0.99 * v + 0.01 * g[i] ** 2;
        const [mHat, vHat] = [m / (1 - 0.9 ** (t + 1)), v / (1 - 0.99 ** (t + 1))];
        x = x - 0.05 * 0.1 * x - (0.05 * mHat) / (Math.sqrt(vHat) + 1e-8);
      });
      return x;
    });
    for (const g of gradients) optimizer.update([tf.tensor1d(g)], 0.05);
    expectNear(values(w.value), expected);
  });

  it('decays only the parameters it is told to', () => {
    const { w, optimizer } = setUp({ decays: () => false });
    optimizer.update([tf.zeros([3])], 0.05);
    expectNear(values(w.value), START);
  });

  it('leaves a parameter as it is that the loss does not depend on, also its moments', async () => {
    const { parameters, w } = setUp();
    const unreached = parameters.scope().parameter('unreached', [3], constant(Float32Array.from(START)));
    unreached.value = tf.tensor1d(START);
    const optimizer = new AdamW([unreached, w], { beta1: 0.9, beta2: 0.99, weight_decay: 0.1 });
    optimizer.initialize();
    for (let step = 0; step < 3; step++) {
      const lossOf = () => ({ loss: w.value.sum() as tf.Scalar });
      const { gradients, metrics } = await sumGradients([unreached, w], 2, lossOf);
      const norm = finiteNorm(gradients, 2, { ...SEEN, metrics });
      expect(norm).toBeCloseTo(Math.sqrt(3), 5);
      await update(optimizer, gradients, 0.1, { norm, accumulation: 2, clip_norm: 0 });
    }
    expect(values(unreached.value)).toEqual(START);
    for (const moment of ['m.unreached', 'v.unreached'])
      expect(values(optimizer.state.get(moment)!.value)).toEqual([0, 0, 0]);
    expect(values(w.value)[0]).toBeLessThan(START[0]);
  });

  it('makes a step of nothing where the loss depends on no parameter', async () => {
    const { w, optimizer } = setUp();
    const { gradients, metrics } = await sumGradients([w], 1, () => ({ loss: tf.scalar(2) }));
    const norm = finiteNorm(gradients, 1, { ...SEEN, metrics });
    await update(optimizer, gradients, 0.1, { norm, accumulation: 1, clip_norm: 1 });
    expect([norm, metrics.loss, ...values(w.value)]).toEqual([0, 2, ...START]);
  });

  it('micro-batches add up to the batch', async () => {
    const data = tf.tensor2d([1, 2, 3, 4, 5, 6, -1, 0, 2, 3, 3, 3], [4, 3]);
    const after = async (parts: number) => {
      const { w, optimizer } = setUp();
      const rows = 4 / parts;
      const { gradients, metrics } = await sumGradients([w], parts, (part) => ({
        loss: data
          .slice([part * rows, 0], [rows, 3])
          .mul(w.value)
          .sum(1)
          .square()
          .mean() as tf.Scalar,
      }));
      const norm = finiteNorm(gradients, parts, { ...SEEN, metrics });
      await update(optimizer, gradients, 0.1, { norm, accumulation: parts, clip_norm: 0 });
      return [...values(w.value), norm, metrics.loss];
    };
    const whole = await after(1);
    for (const parts of [2, 4]) expectNear(await after(parts), whole, 1e-3);
  });

  it('clips the gradient to a global norm', async () => {
    // A first step of Adam does not feel the scale, so the moments are looked at.
    const { optimizer } = setUp();
    const step = async (gradient: number[]) => {
      const gradients = [tf.tensor1d(gradient)];
      const norm = finiteNorm(gradients, 1, SEEN);
      await update(optimizer, gradients, 0.1, { norm, accumulation: 1, clip_norm: 1 });
      return norm;
    };
    expect(await step([3, 0, 4])).toBeCloseTo(5, 5);
    expectNear(values(optimizer.state.get('m.w')!.value), [0.06, 0, 0.08]);
    await step([0.3, 0, 0]);
    expectNear(values(optimizer.state.get('m.w')!.value), [0.084, 0, 0.072]);
  });

  it('refuses a gradient or a loss that is not finite, and says what it saw', () => {
    const before = tf.memory().numTensors;
    for (const [gradient, loss] of [
      [Number.NaN, 1],
      [Number.POSITIVE_INFINITY, 1],
      [1, Number.NaN],
    ]) {
      const seen = { step: 7, lr: 0.25, metrics: { loss }, batch: { images: ['a', 'b', 'c', 'd', 'e'] } };
      const check = () => finiteNorm([tf.tensor1d([1, gradient, 0])], 1, seen);
      expect(check).toThrow(TrainingError);
      expect(check).toThrow(
        /^step 7 was not made: .*\(loss \S+, gradient norm \S+, learning rate 0\.25; images a, b, c, d, … \(5 in all\)\)$/,
      );
    }
    expect(tf.memory().numTensors).toBe(before);
  });

  it('an average moves a little at first and by its decay in the end', () => {
    const { parameters, w } = setUp();
    const ema = new Ema([...parameters], 0.5);
    ema.initialize();
    w.value = tf.zeros([3]);
    ema.update(1); // d = min(0.5, 2/11)
    const first = START.map((x) => (x * 2) / 11);
    expectNear(values(ema.parameters.get('w')!.value), first);
    ema.update(1000);
    expectNear(
      values(ema.parameters.get('w')!.value),
      first.map((x) => x / 2),
    );
  });
});
