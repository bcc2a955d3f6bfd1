import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { Quantizer } from '../../../src/models/tokenizer/quantizers/vector.js';
import { constant } from '../../../src/nn/initializers.js';
import { Parameters } from '../../../src/nn/parameters.js';
import { Random } from '../../../src/random.js';
import { describeEngines } from '../../support/engines.js';

/** A quantizer of unit vectors with the given codes. */
function normalizing(codes: number[][]): Quantizer {
  const parameters = new Parameters();
  const options = { codebook_size: codes.length, token_size: codes[0].length };
  const quantizer = new Quantizer(
    parameters.scope(),
    { ...options, l2_normalize: true, commitment: 0.25, clustering: false },
    constant(Float32Array.from(codes.flat())),
  );
  parameters.initialize(Random.of(1, 'codes'));
  return quantizer;
}

describeEngines('a quantizer of unit vectors', () => {
  it('has a finite gradient where a feature is zero', () => {
    const quantizer = normalizing([
      [0.6, 0.8],
      [0, 1],
    ]);
    const z = tf.tensor3d([0, 0, 1, 1], [1, 2, 2]);
    const [lengths, gradient] = tf.tidy(() => [
      quantizer.quantize(z).latents.norm(2, -1).dataSync(),
      tf
        .grad((x) => quantizer.quantize(x as tf.Tensor3D).loss)(z)
        .dataSync(),
    ]);
    expect(lengths[0]).toBe(0);
    expect(lengths[1]).toBeCloseTo(1, 6);
    // Half the mean over four numbers of ¼·2·(0 − q), divided by the least norm.
    expect(gradient[0] * 1e-12).toBeCloseTo(-0.6 / 8, 5);
    expect(gradient[1] * 1e-12).toBeCloseTo(-0.8 / 8, 5);
    expect(gradient.slice(2).every(Number.isFinite)).toBe(true);
  });
});
