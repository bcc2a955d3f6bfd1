import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { openCase } from '../../../src/bench/cases.js';
import { parseConfig } from '../../../src/config/schema.js';
import { openDataset } from '../../../src/data/dataset.js';
import { TrainingLoader } from '../../../src/data/loader.js';
import { openEngine } from '../../../src/engine/index.js';
import * as ops from '../../../src/engine/ops/index.js';
import { drawPictures } from '../../../src/quickstart/pictures.js';
import { TokenizerTrainer } from '../../../src/train/tokenizer/trainer.js';
import { type Observed, pretendCuda } from '../../aten/pretend-cuda.js';
import { TOKENIZER, TRANSFORMER } from '../../support/small-sizes.js';

// Tests the engine on a pretended CUDA device: which kernels it uses, how often it waits for the device, and the operator
// tests and goldens once more.

const BRIDGE = fileURLToPath(new URL('../../../dist/engine/libtorch/bridge.node', import.meta.url));
const built = existsSync(BRIDGE);

// PyTorch's bfloat16 products use oneDNN if the processor has instructions for them. With this limit, oneDNN refuses them:
// the pretended device must not need them.
vi.stubEnv('ONEDNN_MAX_CPU_ISA', 'AVX2');
vi.stubEnv('DNNL_MAX_CPU_ISA', 'AVX2'); // its name in PyTorch 1.x

if (built) {
  vi.stubEnv('ALITOK_TEST_ENGINES', 'libtorch');
  vi.stubEnv('ALITOK_TEST_DEVICE', 'pretended-cuda');
  await import('../ops/ops.test.js');
  await import('../ops/large-shapes.test.js');
  await import('../../nn/adamw.test.js');
  await import('../../train/step/optimization.test.js');
  await import('../../golden/generator.test.js');
  await import('../../golden/tokenizer.test.js');
  await import('../../golden/discriminator.test.js');
  await import('../../golden/perceptual.test.js');
  await import('../../golden/bf16.test.js');
}

const CONFIG = parseConfig(
  {
    tokenizer: TOKENIZER,
    discriminator: { hidden_channels: 32, stages: 1 },
    tokenizer_training: {
      batch_size: 4,
      warmup_steps: 4,
      stage1: {
        phases: [
          { steps: 2, lr: 1e-3, w_lpips: 0, w_perc: 0 },
          { steps: 9, lr: 1e-3, w_lpips: 0, w_perc: 0, adversarial: true },
        ],
      },
    },
    generator: { ...TRANSFORMER, classes: 12 },
  },
  'test',
);

/** Codes of an image: a grid of 2 × 2, and the prefix. */
const TOKENS = 7;
const FLASH = '_scaled_dot_product_flash_attention';
const EFFICIENT = '_scaled_dot_product_efficient_attention';

describe.skipIf(!built)('on a CUDA device', () => {
  let seen: Observed;
  const open = async (precision: 'float32' | 'bf16' = 'float32') => {
    await openEngine('libtorch', { device: 'cpu', precision });
    seen = pretendCuda();
  };
  const count = (name: string) => seen.calls.get(name) ?? 0;
  beforeEach(() => open());

  describe('attention', () => {
    const differentiate = (width: number, options = {}) => {
      const draw = (seed: number) => tf.randomNormal([2, 6, 2, width], 0, 1, 'float32', seed);
      const run = (...x: tf.Tensor[]) => {
        const [q, k, v] = x as tf.Tensor4D[];
        return ops
          .attention(q, k, v, { causal: true, ...options })
          .square()
          .sum();
      };
      return tf
        .grads(run)([1, 2, 3].map(draw))
        .map((x) => [...x.dataSync()]);
    };

    it.each([
      ['bf16', FLASH],
      ['float32', EFFICIENT],
    ] as const)('in %s is %s, its gradient too', async (precision, operator) => {
      await open(precision);
      differentiate(16);
      expect([count(operator), count(`${operator}_backward`)]).toEqual([2, 1]); // the gradient recomputes it
      expect(count('_softmax')).toBe(0);
    });

    it.each([
      ['heads that those kernels cannot load', 12, {}],
      ['dropout by our own hash', 16, { dropout: 0.1, seed: 1 }],
    ])('with %s uses matrix products', (_, width, options) => {
      differentiate(width, options);
      expect([count(EFFICIENT), count(FLASH)]).toEqual([0, 0]);
      expect(count('_softmax')).toBe(2);
    });

    it('uses matrix products if these operators have other signatures, as in PyTorch 2.0', () => {
      const fused = differentiate(16).flat();
      seen = pretendCuda({
        [`${EFFICIENT}_backward`]: `aten::${EFFICIENT}_backward(Tensor grad_out_, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, bool is_causal=False, bool chunk_grad_outputs=False) -> (Tensor, Tensor, Tensor)`,
      });
      const composed = differentiate(16).flat();
      expect(count(EFFICIENT)).toBe(0);
      composed.forEach((x, i) => {
        expect(x).toBeCloseTo(fused[i], 4);
      });
    });
  });

  it('AdamW is one call; gradients have the memory layout of their parameters, and none is scaled twice', async () => {
    const attributes = { lr: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, step: 3 };
    const step = () => {
      const draw = (seed: number, shape = [3, 5]) => tf.randomNormal(shape, 0, 1, 'float32', seed);
      const shared = draw(1);
      const gradients = [shared, shared.reshape([3, 5]), tf.transpose(draw(2, [5, 3]))];
      const tensors = gradients.map((gradient, i) => ({
        parameter: draw(10 + i),
        gradient,
        m: draw(20 + i),
        v: draw(30 + i).square(),
      }));
      const next = ops.adamW(tensors, { ...attributes, gradientScale: 0.5 });
      return next.flat().map((x) => [...x.dataSync()]);
    };
    const fused = step();
    expect(count('_fused_adamw_')).toBe(1);
    await openEngine('cpu');
    step().forEach((values, i) => {
      values.forEach((value, j) => {
        expect(fused[i][j]).toBeCloseTo(value, 4);
      });
    });
  });

  it('an index out of range makes the device unusable', async () => {
    const table = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    expect([...ops.embedding(table, tf.tensor1d([1, 0], 'int32')).dataSync()]).toEqual([3, 4, 1, 2]);
    expect(() => tf.gather(table, [0, 2])).toThrow(/device-side assert/);
    expect(() => table.dataSync()).toThrow(/device-side assert/);
    await open();
    expect([...table.dataSync()]).toEqual([1, 2, 3, 4]);
  });

  describe('the host waits', () => {
    it('never while codes are drawn', async () => {
      const sampling = openCase({ name: 'sample', batch: 2 }, CONFIG);
      await sampling.run(); // this creates the rotary table
      Object.assign(seen, { waits: [], sent: 0 });
      await sampling.run();
      expect(seen.waits).toEqual([]);
      // Conditions of two images with and without their class, and two random numbers per code.
      expect(seen.sent).toBe(4 + 2 * TOKENS);
      sampling.dispose();
    });

    it('twice per generator step: for loss and norm, before anything changes', async () => {
      const training = openCase({ name: 'train', batch: 2 }, CONFIG);
      seen.waits.length = 0;
      await training.run();
      expect(seen.waits).toEqual(['read', 'read']);
      training.dispose();
    });

    it('per tokenizer step for these, its codes, and their counts', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'cuda-'));
      const pictures = await drawPictures({ folder, size: 16, perClass: 2, seed: 1, split: 'train' });
      const dataset = await openDataset({ folder: pictures });
      const trainer = new TokenizerTrainer(
        CONFIG,
        1,
        () => new TrainingLoader({ dataset, imageSize: 16, batchSize: 4, seed: 0 }),
      );
      trainer.initialize();
      const waits: string[][] = [];
      for (let i = 0; i < 5; i++) {
        seen.waits.length = 0;
        await trainer.step();
        waits.push([...seen.waits]);
      }
      const plain = ['read', 'read', 'read', 'masked_select'];
      const discriminator = ['read', 'read'];
      expect(waits).toEqual([plain, plain, plain, discriminator, plain]);
      await trainer.close();
      trainer.dispose();
      await rm(folder, { recursive: true });
    });
  });
});
