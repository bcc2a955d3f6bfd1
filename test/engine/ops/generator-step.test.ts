import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { WeightKind } from '../../../src/engine/ops/index.js';
import { Generator } from '../../../src/models/generator/generator.js';
import { packWeights } from '../../../src/sample/pack-weights.js';
import { canRun, device, openTested } from '../../support/engines.js';
import { drawingGenerator } from '../../support/sampling.js';

const SIZES = { width: 64, layers: 2, heads: 4, classes: 10, codebook_size: 96, prefix_tokens: 3, grid: 3 };
const STEPS = 4;

/** Engines whose backend can run a whole step. */
interface Stepping {
  takesStep(sequences: number, widths: number[], headWidth: number): boolean;
}

/** Logits (steps, B, N) of a few steps. */
function logits(generator: Generator, sequences: number): Float32Array {
  const cache = generator.createCache(sequences);
  const result = tf.tidy(() =>
    tf
      .stack(
        Array.from({ length: STEPS }, (_, i) => {
          const ids = Array.from({ length: sequences }, (_, b) => (7 * b + 31 * i) % SIZES.codebook_size);
          return generator.step(tf.tensor1d(ids, 'int32'), cache);
        }),
      )
      .dataSync(),
  );
  cache.dispose();
  return result as Float32Array;
}

const ENGINES = (['libtorch', 'tensorflow'] as const).filter(canRun);

// On a CUDA device the single kernel is not always there, and then there is nothing to compare.
describe.runIf(device === 'cpu').each(ENGINES)('a decoding step in one kernel on %s', (engine) => {
  beforeAll(() => openTested(engine));
  afterEach(() => vi.restoreAllMocks());

  const fresh = (kind: WeightKind) => drawingGenerator(SIZES, kind);

  it.each<[number, WeightKind]>([
    [1, 'float32'],
    [3, 'float32'],
    [6, 'float32'],
    [17, 'float32'],
    [32, 'float32'],
    [2, 'bf16'],
    [9, 'bf16'],
    [2, 'int8'],
    [9, 'int8'],
  ])('of %i sequences with weights in %s is what its operations give one after the other', (rows, kind) => {
    const generator = fresh(kind);
    const takes = vi.spyOn(tf.backend() as unknown as Stepping, 'takesStep');
    const together = logits(generator, rows);
    expect(takes.mock.results.map(({ value }) => value)).toEqual([true]);
    takes.mockReturnValue(false);
    const apart = logits(generator, rows);
    generator.dispose();
    const largest = Math.max(...apart.map(Math.abs));
    const furthest = Math.max(...together.map((x, i) => Math.abs(x - apart[i])));
    expect(largest).toBeGreaterThan(0.1);
    // With int8 weights, x is rounded to 16 bits, so a difference in its last place may become one step of 16 bits.
    expect(furthest / largest).toBeLessThan(kind === 'int8' ? 1e-4 : 1e-5);
  });

  it.each<WeightKind>(['float32', 'bf16', 'int8'])(
    'NaN in any weight, in %s, reaches the logits, in separate operations and in one kernel',
    (kind) => {
      const names = [...new Generator(SIZES).parameters].map((p) => p.name);
      const kinds = (x: Float32Array) => Array.from(x, Number.isNaN);
      for (const name of names) {
        const generator = fresh('float32');
        const parameter = generator.parameters.get(name)!;
        const values = parameter.value.dataSync().slice().fill(Number.NaN, 0, parameter.shape.at(-1));
        parameter.value = tf.tensor(values, [...parameter.shape]);
        if (kind !== 'float32') packWeights(generator, kind);
        const together = kinds(logits(generator, 2));
        const takes = vi.spyOn(tf.backend() as unknown as Stepping, 'takesStep').mockReturnValue(false);
        const apart = kinds(logits(generator, 2));
        expect(takes).toHaveBeenCalled();
        takes.mockRestore();
        generator.dispose();
        expect(together, name).toContain(true);
        expect(together, name).toEqual(apart);
      }
    },
  );

  it.runIf(engine === 'libtorch')('is not used for more sequences, nor in bf16', () => {
    const backend = tf.backend() as unknown as Stepping & { precision: string };
    expect(backend.takesStep(33, [64], 16)).toBe(false);
    expect(backend.takesStep(32, [64, 72], 16)).toBe(false);
    backend.precision = 'bf16';
    expect(backend.takesStep(1, [64], 16)).toBe(false);
    backend.precision = 'float32';
    expect(backend.takesStep(1, [64], 16)).toBe(true);
  });
});
