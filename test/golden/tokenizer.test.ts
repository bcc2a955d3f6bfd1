import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { auxFactor, auxTarget, mse } from '../../src/models/tokenizer/losses.js';
import { FROZEN_IN_STAGE_2, type Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { describeEngines } from '../support/engines.js';
import { expectClose, NHWC_TO_NCHW, type openGolden } from './golden.js';
import { openTokenizer } from './tokenizer.js';

const DECAY = 0.99;

/** Gradients of `loss` by the trained parameters, by name. */
function gradients(tokenizer: Tokenizer, loss: () => tf.Scalar): Map<string, tf.Tensor> {
  const trained = [...tokenizer.parameters].filter(
    (p) => !p.buffer && (tokenizer.stage === 1 || !FROZEN_IN_STAGE_2.test(p.name)),
  );
  const grads = tf.grads(loss)(trained.map((p) => p.value));
  return new Map(trained.map((p, i) => [p.name, grads[i]]));
}

function expectGradients(golden: Awaited<ReturnType<typeof openGolden>>, actual: Map<string, tf.Tensor>) {
  const names = golden.names.filter((name) => name.startsWith('grad.')).map((name) => name.slice(5));
  expect([...actual.keys()].sort()).toEqual(names.sort());
  for (const [name, gradient] of actual) expectClose(name, gradient, golden.values(`grad.${name}`), 1e-3);
}

describeEngines('tokenizer goldens', () => {
  it('stage 1: encoder output, indices, reconstruction and prefix', async () => {
    const { golden, tokenizer, images } = await openTokenizer(1);
    const z = tokenizer.encode(images); // (B, T, c); the reference has (B, c, 1, T)
    expectClose('enc.z', z.transpose([0, 2, 1]), golden.values('enc.z'));
    const { indices, image, aux } = tokenizer.forward(images);
    expect([...indices.dataSync()]).toEqual(golden.integers('indices'));
    expectClose('recon', image.transpose(NHWC_TO_NCHW), golden.values('recon'));
    expectClose('aux', aux!.transpose(NHWC_TO_NCHW), golden.values('aux'));
    expect([...tokenizer.tokenize(images).dataSync()]).toEqual(golden.integers('indices'));
    const codes = indices.reshape([images.shape[0], -1]) as tf.Tensor2D;
    expectClose('detokenize', tokenizer.detokenize(codes).transpose(NHWC_TO_NCHW), golden.values('recon'));
  });

  it('stage 1: losses and gradients', async () => {
    const { golden, tokenizer, images } = await openTokenizer(1);
    const { patch_size, prefix_tokens } = tokenizer.geometry;
    const grads = gradients(tokenizer, () => {
      const { image, aux, loss } = tokenizer.forward(images);
      const reconstruction = mse(images, image);
      const auxError = mse(auxTarget(images, patch_size, prefix_tokens), aux!);
      const total = reconstruction.add(auxError.mul(auxFactor(tokenizer.geometry, 10))).add(loss!);
      expectClose('mse', reconstruction, [golden.scalar('loss.mse')]);
      expectClose('aux_mse', auxError, [golden.scalar('loss.aux_mse')]);
      expectClose('quantizer', loss!, [golden.scalar('loss.quantizer')]);
      expectClose('total', total, [golden.scalar('loss.total')]);
      return total as tf.Scalar;
    });
    expectGradients(golden, grads);
  });

  it('stage 1: codebook and usage after the clustering update', async () => {
    const { golden, tokenizer, images } = await openTokenizer(1);
    const { latents, indices } = tokenizer.forward(images);
    tokenizer.quantizer.updateClusters!(latents, indices, DECAY);
    for (const name of ['quantize.embedding.weight', 'quantize.embed_prob'])
      expectClose(name, tokenizer.parameters.get(name)!.value, golden.values(`after.${name}`));
  });

  it('stage 2: reconstruction, loss and gradients of what trains', async () => {
    const { golden, tokenizer, images } = await openTokenizer(2);
    const { indices, image } = tokenizer.forward(images);
    expect([...indices.dataSync()]).toEqual(golden.integers('indices'));
    expectClose('recon', image.transpose(NHWC_TO_NCHW), golden.values('recon'));
    const frozen = [...tokenizer.parameters]
      .map((p) => p.name)
      .filter((name) => FROZEN_IN_STAGE_2.test(name));
    expect(frozen.sort()).toEqual((JSON.parse(golden.metadata.frozen) as string[]).sort());
    const grads = gradients(tokenizer, () => {
      const loss = mse(images, tokenizer.forward(images).image);
      expectClose('mse', loss, [golden.scalar('loss.mse')]);
      return loss;
    });
    expectGradients(golden, grads);
  });
});
