import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { EngineOptions } from '../../../src/engine/index.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import type { WeightKind } from '../../../src/engine/ops/index.js';
import type { Generator } from '../../../src/models/generator/generator.js';
import type { SampleOptions } from '../../../src/sample/sampler.js';
import { canRun, device, openTested } from '../../support/engines.js';
import { codesOf, drawingGenerator } from '../../support/sampling.js';

// Sampling on a real or pretended CUDA device: a step that is recorded once has the same results as steps run one by one.

const SIZES = { width: 96, layers: 3, heads: 2, classes: 10, codebook_size: 96, prefix_tokens: 3, grid: 3 };

describe.runIf(canRun('libtorch') && device !== 'cpu')('a decoding step that is recorded', () => {
  const backend = () => tf.backend() as LibtorchBackend;
  const open = (precision: EngineOptions['precision']) => openTested('libtorch', { precision });
  beforeEach(() => open('float32'), 300_000);
  afterEach(() => vi.restoreAllMocks());

  const fresh = (weights?: WeightKind) => drawingGenerator(SIZES, weights);
  const sampled = (generator: Generator, options?: Partial<SampleOptions>) =>
    codesOf(generator, [0, 7, 3, 9], options);

  it.each<[NonNullable<EngineOptions['precision']>, WeightKind, Partial<SampleOptions>]>([
    ['float32', 'float32', {}],
    ['float32', 'float32', { guidance: { scale: 0, power: 1 } }],
    ['float32', 'float32', { temperature: 0 }],
    ['float32', 'float32', { top_k: 20, top_p: 0.5, temperature: 1.3 }],
    ['float32', 'bf16', {}],
    ['bf16', 'float32', {}],
    ['bf16', 'bf16', {}],
  ])('draws the same codes, in %s with weights in %s, %j', async (precision, weights, options) => {
    await open(precision);
    const generator = fresh(weights);
    const record = vi.spyOn(backend(), 'record');
    const recorded = await sampled(generator, options);
    expect(record.mock.results[0].value).toBeDefined();
    record.mockReturnValue(undefined);
    expect(await sampled(generator, options)).toEqual(recorded);
    expect(new Set(recorded.flat()).size).toBeGreaterThan(4);
    generator.dispose();
  });

  it('leaves nothing behind', async () => {
    const generator = fresh();
    await sampled(generator); // this creates the rotary table
    const before = [backend().native.count(), tf.memory().numTensors];
    await sampled(generator);
    expect([backend().native.count(), tf.memory().numTensors]).toEqual(before);
    generator.dispose();
  });

  it('uses the weights at the time of sampling', async () => {
    const generator = fresh();
    const before = await sampled(generator);
    const weight = generator.parameters.get('output.weight')!;
    weight.value = tf.tidy(() => weight.value.neg());
    expect(await sampled(generator)).not.toEqual(before);
    generator.dispose();
  });
});
