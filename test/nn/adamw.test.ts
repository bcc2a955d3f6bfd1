import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { AdamW } from '../../src/nn/adamw.js';
import { Ema } from '../../src/nn/ema.js';
import { constant } from '../../src/nn/initializers.js';
import { Parameters } from '../../src/nn/parameters.js';
import { Random } from '../../src/random.js';
import { describeEngines } from '../support/engines.js';

const START = [1, -2, 0.5];

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

  it('decays only the selected parameters', () => {
    const { w, optimizer } = setUp({ decays: () => false });
    optimizer.update([tf.zeros([3])], 0.05);
    expectNear(values(w.value), START);
  });

  it('gives each parameter a learning rate of its own', () => {
    const parameters = new Parameters();
    const all = [0, 1, 2].map((i) => parameters.scope().parameter(`${i}`, [1], constant(Float32Array.of(1))));
    parameters.initialize(Random.of(0));
    const lrScale = ({ name }: { name: string }) => 0.5 ** Number(name);
    const optimizer = new AdamW(all, { beta1: 0.9, beta2: 0.99, weight_decay: 0.1, lrScale });
    optimizer.initialize();
    optimizer.update(
      all.map(() => tf.tensor1d([3])),
      0.1,
    );
    const rates = [0.1, 0.05, 0.025];
    expectNear(
      all.flatMap((p) => values(p.value)),
      rates.map((lr) => 1 - lr * 0.1 - lr), // the first step of Adam has the size of the rate
    );
    parameters.dispose();
    optimizer.state.dispose();
  });

  it('a moving average warms up to its decay', () => {
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
