import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { loadConfig } from '../../../../src/config/load.js';
import { ConfigError } from '../../../../src/errors.js';
import { describeEngines } from '../../../support/engines.js';
import { openQuantizer } from './quantizer.js';

const withLevels = (...fsq_levels: number[]) =>
  openQuantizer('fsq', {
    fsq_levels,
    token_size: fsq_levels.length,
    codebook_size: fsq_levels.reduce((a, b) => a * b),
  });

/** Codes 0 … count − 1 as one image's. */
const allCodes = (count: number) =>
  tf.tensor2d(
    Int32Array.from({ length: count }, (_, i) => i),
    [1, count],
    'int32',
  );

describeEngines('finite scalar quantization', () => {
  it('rounds each channel to its levels', () => {
    const { quantizer, parameters } = withLevels(3, 4);
    expect([...parameters]).toEqual([]);
    const values = [-20, -0.7, 0, 0.7, 20];
    const z = tf.tensor3d(
      values.flatMap((x) => [x, x]),
      [1, values.length, 2],
    );
    const { tokens, indices, loss, latents } = quantizer.quantize(z);
    expect(loss).toBeUndefined();
    expect([...latents.dataSync()]).toEqual([...z.dataSync()]);
    // Three levels: 0.999·tanh(z), so ±0.7 gives ±0.604. Four: 1.4985·tanh(z + tan(0.5/1.4985)) − 0.5, which is
    // −1.03, 0.004 and 0.66 for −0.7, 0 and 0.7, and −1.998 and 0.998 at the ends; levels are divided by 2.
    const levels = [
      [-1, -1],
      [-1, -0.5],
      [0, 0],
      [1, 0.5],
      [1, 0.5],
    ];
    const found = [...tokens.dataSync()];
    for (const [i, level] of levels.flat().entries()) expect(found[i]).toBeCloseTo(level, 5);
    // Digits: (−1, 0, 1) + 1, and (−2 … 1) + 2 worth 3 each.
    expect([...indices.dataSync()]).toEqual([0 + 3 * 0, 0 + 3 * 1, 1 + 3 * 2, 2 + 3 * 3, 2 + 3 * 3]);
  });

  it.each([[8, 8, 8, 6, 5], [2, 3, 4, 5, 7], [16], [4, 4]])(
    'levels %j: every code is one point, and every point its code',
    (...levels) => {
      const { quantizer } = withLevels(...levels);
      const count = levels.reduce((a, b) => a * b);
      const points = quantizer.lookup(allCodes(count));
      const values = points.dataSync();
      const seen = new Set<string>();
      for (let code = 0; code < count; code++) {
        let rest = code;
        const point = levels.map((level, i) => {
          const digit = rest % level;
          rest = Math.floor(rest / level);
          const half = Math.floor(level / 2);
          expect(Math.abs(values[code * levels.length + i] - (digit - half) / half)).toBeLessThan(1e-6);
          return digit;
        });
        seen.add(point.join());
      }
      expect(seen.size).toBe(count);
      expect(Math.min(...values)).toBe(-1);
      expect(Math.max(...values)).toBeLessThanOrEqual(1);
      // The preimage of a point under the bound, by the definition, in double precision.
      const z = Float32Array.from(values, (value, i) => {
        const level = levels[i % levels.length];
        const half = ((level - 1) * (1 - 1e-3)) / 2;
        const offset = level % 2 === 0 ? 0.5 : 0;
        const inside = Math.max(-0.9999, Math.min(0.9999, (value * Math.floor(level / 2) + offset) / half));
        return Math.atanh(inside) - Math.tan(offset / half);
      });
      const { indices, tokens } = quantizer.quantize(tf.tensor3d(z, [1, count, levels.length]));
      const codes = indices.dataSync();
      for (let code = 0; code < count; code++) expect(codes[code]).toBe(code);
      expect(tokens.sub(points).abs().max().dataSync()[0]).toBeLessThan(1e-5);
    },
  );

  it('passes the gradient of the bound through the rounding', () => {
    const { quantizer } = withLevels(5, 6);
    const at = [0.3, -0.4];
    const z = tf.tensor3d(at, [1, 1, 2]);
    const gradient = tf
      .grad((x) => quantizer.quantize(x as tf.Tensor3D).tokens.sum())(z)
      .dataSync();
    const bound = (x: number, level: number) => {
      const half = ((level - 1) * (1 - 1e-3)) / 2;
      const offset = level % 2 === 0 ? 0.5 : 0;
      return (Math.tanh(x + Math.tan(offset / half)) * half - offset) / Math.floor(level / 2);
    };
    [5, 6].forEach((level, i) => {
      const difference = (bound(at[i] + 1e-5, level) - bound(at[i] - 1e-5, level)) / 2e-5;
      expect(gradient[i]).toBeCloseTo(difference, 4);
    });
  });

  it('shows NaN in the tokens, with a code that exists', () => {
    const { quantizer } = withLevels(4, 4);
    const { tokens, indices } = quantizer.quantize(tf.tensor3d([Number.NaN, 0], [1, 1, 2]));
    expect([...tokens.dataSync()]).toEqual([Number.NaN, expect.any(Number)]);
    expect(indices.dataSync()[0]).toBe(0 + 4 * 2);
  });
});

it.each([
  [[], /tokenizer\.fsq_levels: is missing: .* such as \[8, 8, 8, 6, 5\]/],
  [
    ['tokenizer.fsq_levels=[8, 8, 5]'],
    /tokenizer\.fsq_levels: \[8, 8, 5\] makes 320 codes of 3 numbers, not 4096 of 32; set tokenizer\.codebook_size=320 and tokenizer\.token_size=3$/,
  ],
  [['tokenizer.fsq_levels=[8, 1]'], /tokenizer\.fsq_levels\.1: expected number to be >=2, got 1/],
  [
    ['tokenizer.fsq_levels=[8]', 'tokenizer.l2_normalize=true'],
    /tokenizer\.l2_normalize: is read by tokenizer\.quantizer=vq alone, but the quantizer is fsq; leave it out/,
  ],
  [
    [
      ...['tokenizer.fsq_levels=[8, 8]', 'tokenizer.codebook_size=64', 'tokenizer.token_size=2'],
      'tokenizer_training.stage1.clustering=true',
    ],
    /stage1\.clustering: must be false or left out, for tokenizer\.quantizer=fsq has no clustering update/,
  ],
])('the config %j is refused', (overrides, message) => {
  const load = () => loadConfig(undefined, ['tokenizer.quantizer=fsq', ...overrides]);
  expect(load).toThrow(ConfigError);
  expect(load).toThrow(message);
});
