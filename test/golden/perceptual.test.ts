import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, it } from 'vitest';
import { loadInception } from '../../src/checkpoint/inception-file.js';
import { tf1Resize } from '../../src/models/resize.js';
import { describeEngines } from '../engines.js';
import { expectClose, NCHW_TO_NHWC, openGolden } from './golden.js';
import { writeInceptionGraph, writeInceptionPytorch } from './inception-files.js';

const golden = await openGolden('perceptual_nets');
const seed = (network: string) => Number(golden.metadata[`seed_${network}`]);

let folder: string;
const file = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'networks-'));
  await writeInceptionPytorch(file('inception.pth'), seed('inception'));
  await writeInceptionGraph(file('inception.pb'), seed('inception'));
});
afterAll(() => rm(folder, { recursive: true }));

describeEngines('perceptual networks goldens', () => {
  const images = (key: string) => golden.tensor(key).transpose(NCHW_TO_NHWC) as tf.Tensor4D;

  it('TensorFlow 1 resizing', async () => {
    const metrics = await openGolden('metrics');
    const resized = tf1Resize(metrics.tensor('resize.in') as tf.Tensor4D, [61, 53]);
    expectClose('resize.tf1_299', resized, metrics.values('resize.tf1_299'), 1e-6);
  });

  it.each(['inception.pth', 'inception.pb'])('%s', async (name) => {
    const inception = await loadInception(file(name));
    const { pool, spatial, logits } = inception.forward(images('inception.x'));
    expectClose('pool3', pool, golden.values('inception.pool3'));
    expectClose('spatial7', spatial, golden.values('inception.spatial7'));
    expectClose('logits_nobias', logits, golden.values('inception.logits_nobias'));
    const bias = inception.parameters.get('fc.bias')!.value;
    expectClose('logits', logits.add(bias), golden.values('inception.logits'));
    inception.parameters.dispose();
  });
});
