import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { Quantizer } from '../../src/models/quantizer.js';
import { normal } from '../../src/nn/initializers.js';
import { Parameters } from '../../src/nn/parameters.js';
import { Random } from '../../src/random.js';
import { describeEngines } from '../engines.js';

describeEngines('a quantizer of unit vectors', () => {
  it('compares directions, and has a gradient where a feature has length 0', () => {
    const parameters = new Parameters();
    const sizes = { codebook_size: 4, token_size: 3, l2_normalize: true };
    const quantizer = new Quantizer(
      parameters.scope(),
      { ...sizes, commitment: 0.25, clustering: false },
      normal(1),
    );
    parameters.initialize(Random.of(0));
    const z = tf.tensor3d([0, 0, 0, 3, 0, 4], [1, 2, 3]);
    const { features } = quantizer.quantize(z);
    for (const [i, value] of [0, 0, 0, 0.6, 0, 0.8].entries())
      expect(features.dataSync()[i]).toBeCloseTo(value, 6);
    const gradient = tf.grad((x) => {
      const { tokens, loss } = quantizer.quantize(x as tf.Tensor3D);
      return tokens.square().sum().add(loss);
    })(z);
    expect([...gradient.dataSync()].every(Number.isFinite)).toBe(true);
    parameters.dispose();
  });
});
