import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { constant } from '../../../../src/nn/initializers.js';
import { describeEngines } from '../../../support/engines.js';
import { openQuantizer } from './quantizer.js';

/** A quantizer with the given codebook. */
function withCodes(codes: number[][], options: { l2_normalize?: boolean; clustering?: boolean } = {}) {
  const { l2_normalize = false, clustering } = options;
  const config = { codebook_size: codes.length, token_size: codes[0].length, l2_normalize };
  const init = constant(Float32Array.from(codes.flat()));
  return openQuantizer('vq', config, { init, clustering });
}

describeEngines('the vector quantizer', () => {
  it('selects the nearest entry, passes the gradient through, and pulls entry and latent together', () => {
    const { quantizer, parameters } = withCodes([
      [0, 0],
      [4, 0],
    ]);
    const z = tf.tensor3d([1, 1, 3, 0], [1, 2, 2]);
    const { tokens, indices, loss } = quantizer.quantize(z);
    expect([...indices.dataSync()]).toEqual([0, 1]);
    expect([...tokens.dataSync()]).toEqual([0, 0, 4, 0]);
    // Squared distances of 2 and 1 over four numbers, times 0.25 and 1.
    expect(loss!.dataSync()[0]).toBeCloseTo((1.25 * 3) / 4, 6);
    const through = tf.grad((x) =>
      quantizer
        .quantize(x as tf.Tensor3D)
        .tokens.mul([5, 7])
        .sum(),
    )(z);
    expect([...through.dataSync()]).toEqual([5, 7, 5, 7]);
    const weight = parameters.get('quantize.embedding.weight')!;
    const [byLatents, byEntries] = tf.grads((x, _) => quantizer.quantize(x as tf.Tensor3D).loss!)([
      z,
      weight.value,
    ]);
    // ¼·2·(z − e)/4 and 2·(e − z)/4.
    for (const [i, g] of [0.125, 0.125, -0.125, 0].entries())
      expect(byLatents.dataSync()[i]).toBeCloseTo(g, 6);
    for (const [i, g] of [-0.5, -0.5, 0.5, 0].entries()) expect(byEntries.dataSync()[i]).toBeCloseTo(g, 6);
    expect([...quantizer.lookup(tf.tensor2d([[1, 0]], [1, 2], 'int32')).dataSync()]).toEqual([4, 0, 0, 0]);
  });

  it('moves unused entries to the nearest latent, and leaves used ones', () => {
    const { quantizer, parameters } = withCodes(
      [
        [0, 0],
        [9, 9],
      ],
      { clustering: true },
    );
    const latents = tf.tensor2d([1, 0, 0, 2], [2, 2]);
    quantizer.updateClusters!(latents, tf.tensor1d([0, 0], 'int32'), 0.99);
    const [a, b, c, d] = parameters.get('quantize.embedding.weight')!.value.dataSync();
    // α = exp(−0.01·2·10/0.01 − 0.001) ≈ 2e-9 of the used entry, exp(−0.001) of the other, whose nearest latent is (0, 2).
    expect([a, b]).toEqual([expect.closeTo(0, 6), expect.closeTo(0, 6)]);
    const kept = 1 - Math.exp(-0.001);
    expect([c, d]).toEqual([expect.closeTo(9 * kept, 5), expect.closeTo(9 * kept + 2 * (1 - kept), 5)]);
    const usage = parameters.get('quantize.embed_prob')!.value.dataSync();
    expect([...usage]).toEqual([expect.closeTo(0.01, 6), 0]);
  });

  it('of unit vectors has a finite gradient where a latent is zero', () => {
    const { quantizer } = withCodes(
      [
        [0.6, 0.8],
        [0, 1],
      ],
      { l2_normalize: true },
    );
    const z = tf.tensor3d([0, 0, 1, 1], [1, 2, 2]);
    const [lengths, gradient] = tf.tidy(() => [
      quantizer.quantize(z).latents.norm(2, -1).dataSync(),
      tf
        .grad((x) => quantizer.quantize(x as tf.Tensor3D).loss!)(z)
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
