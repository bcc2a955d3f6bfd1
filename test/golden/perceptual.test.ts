import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConvNeXtSmall, loadInception, loadLPIPS } from '../../src/checkpoint/networks.js';
import { classifierTerm, lpipsTerm } from '../../src/models/judges/perceptual.js';
import { antialiasedResize, tf1Resize } from '../../src/models/judges/resize.js';
import { describeEngines } from '../support/engines.js';
import { expectClose, expectCloseGradient, NCHW_TO_NHWC, NHWC_TO_NCHW, openGolden } from './golden.js';
import {
  writeConvNeXt,
  writeInceptionGraph,
  writeInceptionPytorch,
  writeLPIPS,
  writeVGG16,
} from './network-files.js';

const golden = await openGolden('perceptual_nets');
const seed = (network: string) => Number(golden.metadata[`seed_${network}`]);

let folder: string;
const file = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'networks-'));
  await writeInceptionPytorch(file('inception.pth'), seed('inception'));
  await writeInceptionGraph(file('inception.pb'), seed('inception'));
  await writeVGG16(file('vgg16.pth'), seed('vgg'));
  await writeLPIPS(file('lpips.pth'), seed('lin'));
  await writeConvNeXt(file('convnext.pth'), seed('convnext'));
});
afterAll(() => rm(folder, { recursive: true }));

describeEngines('perceptual networks goldens', () => {
  const images = (key: string) => golden.tensor(key).transpose(NCHW_TO_NHWC) as tf.Tensor4D;

  it('TensorFlow 1 resizing', async () => {
    const metrics = await openGolden('metrics');
    const resized = tf1Resize(metrics.tensor('resize.in') as tf.Tensor4D, [61, 53]);
    expectClose('resize.tf1_299', resized, metrics.values('resize.tf1_299'), 1e-6);
  });

  it('Inception, the same network from both of its files', async () => {
    const [inception, graph] = [
      await loadInception(file('inception.pth')),
      await loadInception(file('inception.pb')),
    ];
    for (const { name, value } of inception.parameters) {
      const [own, other] = [value, graph.parameters.get(name)!.value].map((x) =>
        Buffer.from(x.dataSync().buffer),
      );
      expect(own.equals(other), name).toBe(true);
    }
    expect([...graph.parameters]).toHaveLength([...inception.parameters].length);
    graph.parameters.dispose();
    // At the network's own size nothing is resized: pixels from 0 to 255 become values in ±1.
    const pixels = images('inception.x').mul(128).add(128) as tf.Tensor4D;
    const { pool, spatial, logits } = inception.features(pixels);
    expectClose('pool3', pool, golden.values('inception.pool3'));
    expectClose('spatial7', spatial, golden.values('inception.spatial7'));
    expectClose('logits_nobias', logits, golden.values('inception.logits_nobias'));
    const bias = inception.parameters.get('fc.bias')!.value;
    expectClose('logits', logits.add(bias), golden.values('inception.logits'));
    inception.parameters.dispose();
  });

  it('LPIPS and its gradient', async () => {
    const lpips = await loadLPIPS({ vgg16: file('vgg16.pth'), lpips: file('lpips.pth') });
    const [x, y] = [images('lpips.x'), images('lpips.y')];
    expectClose('value', lpips.distances(x, y), golden.values('lpips.value'));
    const gradient = tf.grad((y) => lpipsTerm(lpips)(x, y as tf.Tensor4D))(y);
    expectCloseGradient('grad_y', gradient.transpose(NHWC_TO_NCHW), golden.values('lpips.grad_y'));
    lpips.dispose();
  });

  it('antialiased resizing', () => {
    const resized = antialiasedResize(images('convnext.x'), [224, 224]).transpose(NHWC_TO_NCHW);
    expectClose('resized_x', resized, golden.values('convnext.resized_x'), 1e-6);
  });

  it('ConvNeXt-S and its gradient', async () => {
    const network = await loadConvNeXtSmall(file('convnext.pth'));
    const [x, y] = [images('convnext.x'), images('convnext.y')];
    expectClose('logits_x', network.forward(x), golden.values('convnext.logits_x'));
    expectClose('logits_y', network.forward(y), golden.values('convnext.logits_y'));
    const loss = classifierTerm(network);
    const { value, grad } = tf.valueAndGrad((y) => loss(x, y as tf.Tensor4D))(y);
    expectClose('loss', value, golden.values('convnext.loss'), 1e-3);
    expectClose('grad_y', grad.transpose(NHWC_TO_NCHW), golden.values('convnext.grad_y'), 1e-3);
    network.parameters.dispose();
  });
});
