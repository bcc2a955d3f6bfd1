import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openCase } from '../../../src/bench/cases.js';
import { parseConfig } from '../../../src/config/schema.js';
import { openEngine } from '../../../src/engine/index.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import { Generator } from '../../../src/models/generator/generator.js';
import type { SampleOptions } from '../../../src/sample/sampler.js';
import { type Observed, pretendCuda } from '../../aten/pretend-cuda.js';
import { loadEmulated } from '../../cuda/emulate.js';
import { codesOf, drawingGenerator } from '../../support/sampling.js';

// Tests the engine on a pretended CUDA device with our own kernels: operator tests and goldens once more, steps recorded as
// graphs, and the number of commands that the device receives.

const BRIDGE = fileURLToPath(new URL('../../../dist/engine/libtorch/bridge.node', import.meta.url));
const built = existsSync(BRIDGE);

// As in cuda-paths.test.ts: the pretended device must not need the processor's instructions for bfloat16.
vi.stubEnv('ONEDNN_MAX_CPU_ISA', 'AVX2');
vi.stubEnv('DNNL_MAX_CPU_ISA', 'AVX2');

if (built) {
  vi.stubEnv('ALITOK_TEST_ENGINES', 'libtorch');
  vi.stubEnv('ALITOK_TEST_DEVICE', 'pretended-cuda-with-kernels');
  await import('../ops/ops.test.js');
  await import('../ops/large-shapes.test.js');
  await import('../ops/draw.test.js');
  await import('../../nn/adamw.test.js');
  await import('../../train/step/optimization.test.js');
  await import('./recorded-steps.test.js');
  await import('../../golden/generator.test.js');
  await import('../../golden/tokenizer.test.js');
  await import('../../golden/bf16.test.js');
}

type Precision = 'float32' | 'bf16';
const SIZES = { width: 96, layers: 3, heads: 2, classes: 10, codebook_size: 96, prefix_tokens: 3, grid: 3 };
const TOKENS = 12;

describe.skipIf(!built)('on a CUDA device with our own kernels', () => {
  let seen: Observed;
  const backend = () => tf.backend() as LibtorchBackend;
  const open = async (precision: Precision = 'float32') => {
    await openEngine('libtorch', { device: 'cpu', precision });
    await loadEmulated();
    seen = pretendCuda({}, { ownKernels: true });
  };
  beforeEach(() => open(), 300_000);
  afterEach(() => vi.restoreAllMocks());

  const fresh = () => drawingGenerator(SIZES);
  const sampled = (generator: Generator, images: number, options?: Partial<SampleOptions>) =>
    codesOf(
      generator,
      Array.from({ length: images }, (_, i) => i % SIZES.classes),
      options,
    );

  describe('drawing codes', () => {
    it.each<[string, number, Partial<SampleOptions>]>([
      ['of many images', 20, {}],
      ['of one image', 1, {}],
      ['without guidance', 3, { guidance: { scale: 0, power: 1 } }],
      ['the most likely ones', 5, { temperature: 0 }],
      ['with a temperature', 5, { temperature: 0.7 }],
      ['of the most likely few', 5, { top_k: 7 }],
      ['of those that reach a share', 5, { top_p: 0.8 }],
      ['of both', 5, { top_k: 20, top_p: 0.5, temperature: 1.3 }],
    ])('as the CPU draws them: %s', async (_, images, options) => {
      const generator = fresh();
      const found = await sampled(generator, images, options);
      const replayed = seen.calls.get('alitok::graph_replay');
      await openEngine('cpu'); // tfjs's own
      const other = fresh();
      expect(found).toEqual(await sampled(other, images, options));
      expect(replayed).toBe(TOKENS - 1);
      expect(new Set(found.flat()).size).toBeGreaterThan(images === 1 ? 3 : 8);
    });

    it('takes one device call per step, from the second step on, without waiting', async () => {
      const generator = fresh();
      await sampled(generator, 2); // this creates the rotary table
      const calls = () => [...seen.calls.values()].reduce((a, b) => a + b, 0);
      const perStep: number[] = [];
      seen.waits.length = 0;
      let before = calls();
      await codesOf(generator, [0, 1], {}, () => {
        perStep.push(calls() - before);
        before = calls();
      });
      expect(seen.waits).toEqual(['read']); // the codes, at the end
      expect(perStep.slice(1)).toEqual(new Array(TOKENS - 1).fill(1));
      generator.dispose();
    });

    it('leaves no graph behind', async () => {
      await sampled(fresh(), 3);
      expect(seen.calls.get('alitok::graph_end')).toBe(1);
      expect(seen.graphs).toBe(0);
    });

    it('runs without a graph if a step cannot be recorded, with a single warning', async () => {
      const generator = fresh();
      const recorded = await sampled(generator, 2);
      const told: string[] = [];
      backend().warn = (message) => told.push(message);
      // A step that reads from the device cannot be recorded.
      const step = vi.spyOn(generator, 'stepAt').mockImplementation((position, ids, cache) => {
        position.dataSync();
        return Generator.prototype.stepAt.call(generator, position, ids, cache);
      });
      expect(await sampled(generator, 2)).toEqual(recorded);
      expect(await sampled(generator, 2)).toEqual(recorded);
      expect(step).toHaveBeenCalled();
      expect(told).toEqual([
        expect.stringMatching(
          /^steps of sampling cannot be recorded on cuda:0, so each takes longer: .*capturing: read$/,
        ),
      ]);
      expect(seen.graphs).toBe(0);
    });

    it('gives wrong codes if a number from the host is recorded', async () => {
      const generator = fresh();
      const right = await sampled(generator, 2);
      let step = 0;
      vi.spyOn(generator, 'stepAt').mockImplementation((_, ids, cache) => {
        const position = tf.tensor1d([Math.min(step, TOKENS - 1)], 'int32'); // from the host
        step += 1;
        return Generator.prototype.stepAt.call(generator, position, ids, cache);
      });
      expect(await sampled(generator, 2)).not.toEqual(right);
    });
  });

  it('a graph that reads freed memory is an error', () => {
    const x = tf.keep(tf.tensor1d([1, 2]));
    const y = tf.variable(tf.tensor1d([0, 0]), false);
    const recording = backend().record(() => {
      backend().call(
        'copy_',
        backend().id(y),
        backend().call('add.Tensor', backend().id(y), backend().id(x)),
      );
    })!;
    recording.replay();
    expect([...y.dataSync()]).toEqual([2, 4]); // once while recording, and once in the replay
    x.dispose();
    expect(() => recording.replay()).toThrow(/illegal memory access/);
    recording.close();
  });

  describe('the device gets few commands', () => {
    // The numbers are in docs/performance.md.
    /** The published AR-B, except for its widths, which make no difference here. */
    const CONFIG = parseConfig(
      {
        tokenizer: { image_size: 32, patch_size: 8, codebook_size: 64, token_size: 4 },
        generator: { width: 32, layers: 24, heads: 2, classes: 10, dropout: 0.1 },
      },
      'test',
    );

    it('for a decoding step', async () => {
      await open('bf16');
      const sampling = openCase({ name: 'sample', batch: 1, steps: 3 }, CONFIG);
      await sampling.run();
      const launches: number[] = [];
      vi.spyOn(backend(), 'record').mockImplementation((step) => {
        const before = seen.launches;
        step();
        launches.push(seen.launches - before);
        return { replay: step, close() {} };
      });
      await sampling.run();
      sampling.dispose();
      expect(launches[0]).toBe(197);
    });

    it('for a training step', async () => {
      await open('bf16');
      const training = openCase({ name: 'train', batch: 2 }, CONFIG);
      await training.run();
      const before = seen.launches;
      await training.run();
      training.dispose();
      expect(seen.launches - before).toBe(1417);
    });
  });
});
