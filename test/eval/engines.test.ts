import { expect, it } from 'vitest';
import { frechetDistance } from '../../src/eval/metrics/frechet.js';
import { precisionRecall } from '../../src/eval/metrics/precision-recall.js';
import { FeatureStatistics, type Gaussian } from '../../src/eval/metrics/statistics.js';
import { Random } from '../../src/random.js';
import { describeEngines } from '../support/engines.js';

const D = 96;

/** Rows like pooled features: nonnegative, far from zero, with very different variances, and correlated. */
function features(count: number, seed: number, stretch: number): Float32Array {
  const random = Random.of(seed, 'features');
  const rows = new Float32Array(count * D);
  for (let r = 0; r < count; r++) {
    const common = random.normal();
    for (let i = 0; i < D; i++) {
      const spread = 10 ** ((-2 * i) / D) * stretch;
      rows[r * D + i] = Math.abs(0.4 + spread * (random.normal() + common));
    }
  }
  return rows;
}

/** Mean and covariance by their definition, in float64. */
function byDefinition(rows: Float32Array): Gaussian {
  const count = rows.length / D;
  const mean = new Float64Array(D);
  for (let at = 0; at < rows.length; at++) mean[at % D] += rows[at] / count;
  const covariance = new Float64Array(D * D);
  for (let r = 0; r < count; r++)
    for (let i = 0; i < D; i++)
      for (let j = 0; j < D; j++)
        covariance[i * D + j] += ((rows[r * D + i] - mean[i]) * (rows[r * D + j] - mean[j])) / (count - 1);
  return { mean, covariance };
}

function streamed(rows: Float32Array): Gaussian {
  const statistics = new FeatureStatistics(D);
  for (let at = 0; at < rows.length; at += 64 * D) statistics.add(rows.subarray(at, at + 64 * D));
  return statistics.gaussian;
}

const [reference, samples] = [features(2300, 3, 0.3), features(2100, 4, 0.36)];
// Copies of one image have radius 0, and equal images are at distance exactly 0, not slightly above or below.
for (let copy = 1; copy < 5; copy++) reference.copyWithin(copy * D, 0, D);
samples.set(reference.subarray(0, D), 0);
for (let copy = 1; copy < 3; copy++) samples.copyWithin(2060 * D + copy * D, 5 * D, 6 * D);

/** Precision and recall by their definition, in float64; computed once for all engines. */
let found: { precision: number; recall: number } | undefined;
function expected(): { precision: number; recall: number } {
  if (found) return found;
  const distance = (x: Float32Array, i: number, y: Float32Array, j: number) => {
    let sum = 0;
    for (let k = 0; k < D; k++) sum += (x[i * D + k] - y[j * D + k]) ** 2;
    return sum;
  };
  const radii = (x: Float32Array) =>
    Float64Array.from({ length: x.length / D }, (_, i) => {
      const all = Float64Array.from({ length: x.length / D }, (__, j) => distance(x, i, x, j));
      return all.sort()[3]; // the first is the distance to itself
    });
  const [referenceRadii, sampleRadii] = [radii(reference), radii(samples)];
  const precise = new Uint8Array(sampleRadii.length);
  const recalled = new Uint8Array(referenceRadii.length);
  for (let i = 0; i < precise.length; i++)
    for (let j = 0; j < recalled.length; j++) {
      const between = distance(samples, i, reference, j);
      if (between <= referenceRadii[j]) precise[i] = 1;
      if (between <= sampleRadii[i]) recalled[j] = 1;
    }
  expect(precise[0]).toBe(1);
  const share = (flags: Uint8Array) => flags.reduce((sum, flag) => sum + flag, 0) / flags.length;
  found = { precision: share(precise), recall: share(recalled) };
  return found;
}

describeEngines('evaluation', () => {
  it.each([
    ['of many images', 2500, 1100],
    ['of fewer images than features', 60, 80],
  ])('Fréchet distance %s matches float64', (_, first, second) => {
    const [a, b] = [features(first, 1, 0.3), features(second, 2, 0.33)];
    const expected = frechetDistance(byDefinition(a), byDefinition(b));
    expect(Math.abs(frechetDistance(streamed(a), streamed(b)) / expected - 1)).toBeLessThan(1e-7);
  });

  it('precision and recall match float64: in blocks, with copies and exactly at a radius', async () => {
    expect(await precisionRecall(reference, samples, D)).toEqual(expected());
    expect(expected().precision).toBeLessThan(1);
    expect(expected().recall).toBeLessThan(1);
  });

  it('reports features that are not finite', () => {
    const statistics = new FeatureStatistics(2);
    statistics.add(Float32Array.of(1, 2, Number.NaN, 3));
    expect(() => statistics.gaussian).toThrow(/not finite/);
  });
});
