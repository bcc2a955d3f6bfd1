import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { fillByFormula, uniformNumbers } from '../../../src/doctor/formula.js';
import { auxTarget, stitch } from '../../../src/models/tokenizer/losses.js';
import { Tokenizer } from '../../../src/models/tokenizer/tokenizer.js';
import { differentiate, type Gradient, withGradient } from '../../../src/nn/gradients.js';
import { openTokenizer } from '../../golden/tokenizer.js';
import { describeEngines } from '../../support/engines.js';

/** Numbers from 0 to 1 that depend only on the seed. */
function drawn(shape: [number, number, number, number], seed: number): tf.Tensor4D {
  const size = shape.reduce((a, b) => a * b, 1);
  return tf.tensor4d(
    Float32Array.from(uniformNumbers(size, seed), (u) => (u + 1) / 2),
    shape,
  );
}

/** A smooth distance of the images' features, whose gradient is computed with it, as a perceptual term's is. */
function distance(images: tf.Tensor4D, reconstructions: tf.Tensor4D): tf.Scalar {
  const kernel = drawn([3, 3, 3, 5], 3).sub(0.5) as tf.Tensor4D;
  const features = (x: tf.Tensor4D) => tf.conv2d(x, kernel, 2, 'same').tanh();
  return withGradient(reconstructions, (x) =>
    tf.valueAndGrad(
      (y: tf.Tensor4D) => tf.squaredDifference(features(images), features(y)).mean() as tf.Scalar,
    )(x),
  );
}

/** The reference's small tokenizer of stage 1 with `extra` tokens more than a row has patches. */
async function openWith(extra: number) {
  const { tokenizer: golden, images } = await openTokenizer(1);
  const { grid } = golden.geometry;
  golden.parameters.dispose();
  const tokenizer = new Tokenizer({ ...golden.config, prefix_tokens: grid + extra }, 1);
  fillByFormula(tokenizer.parameters, 7);
  return { tokenizer, images };
}

describeEngines('the auxiliary loss', () => {
  // An image of 2 × 2 patches of 2 × 2 pixels, whose colours are all the number of the pixel.
  const image = () => tf.tile(tf.range(0, 16).reshape([1, 4, 4, 1]), [1, 1, 1, 3]) as tf.Tensor4D;
  const brighter = () => image().add(100) as tf.Tensor4D;
  const pixels = (x: tf.Tensor4D) =>
    (x.slice([0, 0, 0, 0], [1, -1, -1, 1]).squeeze([0, 3]) as tf.Tensor2D).arraySync();

  it('has the first row of patches as its target, and for a longer prefix the top-left patch before it', () => {
    expect(pixels(auxTarget(image(), 2, 2))).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
    expect(pixels(auxTarget(image(), 2, 3))).toEqual([
      [0, 1, 0, 1, 2, 3],
      [4, 5, 4, 5, 6, 7],
    ]);
  });

  it('sees the first row of the prefix over the other rows of the image', () => {
    for (const prefix of [2, 3]) {
      expect(pixels(stitch(auxTarget(brighter(), 2, prefix), image()))).toEqual([
        [100, 101, 102, 103],
        [104, 105, 106, 107],
        [8, 9, 10, 11],
        [12, 13, 14, 15],
      ]);
    }
    // An image of a single patch has no other rows.
    expect(pixels(stitch(auxTarget(brighter(), 4, 2), image()))).toEqual(pixels(brighter()));
  });

  describe.each([
    ['grid', 0],
    ['grid + 1', 1],
  ])('with a prefix of %s', (_, extra) => {
    it('its perceptual part trains the head of the prefix, and nothing by the head of the image', async () => {
      const { tokenizer, images } = await openWith(extra);
      const parameters = [...tokenizer.parameters].filter((p) => !p.buffer);
      const loss = () => {
        const { aux, image } = tokenizer.forward(images);
        return distance(images, stitch(aux!, image));
      };
      tf.tidy(() => {
        const { gradients } = differentiate(parameters, () => ({ loss: loss() }));
        const of = new Map(parameters.map(({ name }, i): [string, Gradient] => [name, gradients[i]]));
        const heads = parameters.filter(({ name }) => /^decoder\.(ffn|conv_out)/.test(name));
        expect(heads).toHaveLength(8);
        for (const p of heads) {
          const gradient = of.get(p.name);
          if (!p.name.includes('_aux')) {
            if (gradient)
              expect(
                [...gradient.dataSync()].every((x) => x === 0),
                p.name,
              ).toBe(true);
            continue;
          }
          const norm = gradient!.norm().dataSync()[0];
          expect(norm, p.name).toBeGreaterThan(1e-4);
          // Along the gradient, the loss grows by its norm.
          const [value, direction] = [p.value.clone(), gradient!.div(norm)];
          const moved = (step: number) => {
            p.value = value.add(direction.mul(step));
            return loss().dataSync()[0];
          };
          const step = 0.02;
          const numeric = (moved(step) - moved(-step)) / (2 * step);
          p.value = value.clone();
          expect(Math.abs(numeric / norm - 1), `${p.name}: ${numeric} for ${norm}`).toBeLessThan(1e-2);
        }
        // The decoder is causal, so that the positions of patches have no part in it either.
        const positions = of.get('decoder.latent_token_positional_embedding')!.norm(2, 1).dataSync();
        const last = tokenizer.geometry.prefix_tokens; // the learned token in front is number 0
        expect([...positions].map((norm) => norm > 0)).toEqual([...positions.keys()].map((i) => i <= last));
      });
      tokenizer.parameters.dispose();
    });
  });
});
