import * as tf from '@tensorflow/tfjs';
import { expect, it as test } from 'vitest';
import { drawCodes } from '../../../src/engine/ops/index.js';
import { Random } from '../../../src/random.js';
import { guidanceScale } from '../../../src/sample/sampler.js';
import { describeEngines } from '../../support/engines.js';

const ALL = { temperature: 1, top_k: 0, top_p: 1 };
/** Logits of the probabilities 0.5, 0.3, 0.15, 0.05. */
const LOGITS = Float32Array.from([0.5, 0.3, 0.15, 0.05], (p) => Math.log(p) + 3);

function shares(options: Partial<typeof ALL>, n = 20_000): number[] {
  const random = Random.of(9, 'draw');
  const counts = new Array<number>(LOGITS.length).fill(0);
  const logits = tf.tile(tf.tensor2d(LOGITS, [1, LOGITS.length]), [n, 1]);
  const uniforms = tf.tensor1d(Array.from({ length: n }, () => random.uniform()));
  for (const code of drawCodes(logits, uniforms, { ...ALL, ...options }).dataSync()) counts[code] += 1;
  return counts.map((count) => count / n);
}

function expectShares(actual: number[], expected: number[]) {
  expected.forEach((share, i) => {
    if (share === 0) expect(actual[i]).toBe(0);
    else expect(Math.abs(actual[i] - share)).toBeLessThan(0.015);
  });
}

describeEngines('drawing codes', () => {
  test('codes come up with the probabilities of the softmax', () => {
    expectShares(shares({}), [0.5, 0.3, 0.15, 0.05]);
  });

  test('temperature sharpens: at ½ the probabilities are squared', () => {
    const squares = [0.25, 0.09, 0.0225, 0.0025];
    const sum = squares.reduce((a, b) => a + b);
    expectShares(
      shares({ temperature: 0.5 }),
      squares.map((x) => x / sum),
    );
  });

  test('temperature 0 selects the first of the most likely codes', () => {
    const logits = Float32Array.from([1, 7, 7, 2]);
    const codes = drawCodes(tf.tensor2d(logits, [1, 4]), tf.tensor1d([0.9]), { ...ALL, temperature: 0 });
    expect([...codes.dataSync()]).toEqual([1]);
  });

  test('top-k keeps the k most likely codes', () => {
    expectShares(shares({ top_k: 2 }), [0.5 / 0.8, 0.3 / 0.8, 0, 0]);
  });

  test('top-p keeps the fewest codes that reach the probability', () => {
    expectShares(shares({ top_p: 0.8 - 1e-6 }), [0.5 / 0.8, 0.3 / 0.8, 0, 0]);
    expectShares(shares({ top_p: 0.81 }), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]);
    expectShares(shares({ top_p: 0.01 }), [1, 0, 0, 0]);
  });

  test('top-p applies to the codes that top-k keeps', () => {
    expectShares(shares({ top_k: 2, top_p: 0.6 }), [1, 0, 0, 0]);
  });

  test('the first index whose running sum exceeds the number, at the ends too', () => {
    const logits = tf.tile(tf.tensor2d(LOGITS, [1, 4]), [6, 1]);
    const uniforms = tf.tensor1d([0, 0.49, 0.51, 0.79, 0.81, 0.99999994]);
    expect([...drawCodes(logits, uniforms, ALL).dataSync()]).toEqual([0, 0, 1, 1, 2, 3]);
  });
});

test('guidance grows from 1 towards its scale along a cosine of a power', () => {
  const guidance = { scale: 11, power: 1 };
  expect(guidanceScale(0, 4, guidance)).toBe(1);
  expect(guidanceScale(2, 4, guidance)).toBeCloseTo(6, 12);
  expect(guidanceScale(1, 4, guidance)).toBeCloseTo(1 + 5 * (1 - Math.SQRT1_2), 12);
  expect(guidanceScale(2, 4, { scale: 11, power: 2 })).toBeCloseTo(1 + 5 * (1 - Math.SQRT1_2), 12);
});
