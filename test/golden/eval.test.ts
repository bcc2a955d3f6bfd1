import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { frechetDistance } from '../../src/eval/metrics/frechet.js';
import { InceptionScore } from '../../src/eval/metrics/inception-score.js';
import { precisionRecall } from '../../src/eval/metrics/precision-recall.js';
import { psnr } from '../../src/eval/metrics/psnr.js';
import { FeatureStatistics, type Gaussian } from '../../src/eval/metrics/statistics.js';
import { openNpz } from '../../src/formats/npz.js';
import { openGolden, relativeError } from './golden.js';

const golden = await openGolden('metrics');
const D = golden.shape('a')[1];
const [a, b] = ['a', 'b'].map(golden.values);
const expected = (key: string) => Number(golden.metadata[key]);

function gaussian(rows: Float32Array): Gaussian {
  const statistics = new FeatureStatistics(D);
  statistics.add(rows);
  return statistics.gaussian;
}

function expectWithin(actual: number, wanted: number, tolerance: number) {
  expect(Math.abs(actual / wanted - 1)).toBeLessThan(tolerance);
}

describe('Fréchet distance goldens', () => {
  it('of two sets, in either order', () => {
    expectWithin(frechetDistance(gaussian(a), gaussian(b)), expected('fid'), 1e-7);
    expectWithin(frechetDistance(gaussian(b), gaussian(a)), expected('fid'), 1e-7);
  });

  it('of a set and itself', () => {
    expect(Math.abs(frechetDistance(gaussian(a), gaussian(a)))).toBeLessThan(1e-9);
  });

  it('where there are fewer images than features', () => {
    const few = gaussian(a.subarray(0, (D / 2) * D));
    // The reference takes the root of a singular matrix and loses digits.
    expectWithin(frechetDistance(few, gaussian(b)), expected('fid_rank_deficient'), 1e-7);
    expectWithin(frechetDistance(gaussian(b), few), expected('fid_rank_deficient'), 1e-7);
  });

  it('of statistics that NumPy computed and wrote', async () => {
    const file = await openNpz(fileURLToPath(new URL('../fixtures/goldens/stats.npz', import.meta.url)));
    const read = async (suffix: string) => ({
      mean: (await file.readFloat64(`mu${suffix}`)).data,
      covariance: (await file.readFloat64(`sigma${suffix}`)).data,
    });
    const [first, second] = [await read(''), await read('_s')];
    file.close();
    expectWithin(frechetDistance(first, second), expected('fid'), 1e-7);
    const own = gaussian(a);
    expect(relativeError(own.mean, first.mean)).toBeLessThan(1e-12);
    expect(relativeError(own.covariance, first.covariance)).toBeLessThan(1e-6);
  });
});

describe('inception score goldens', () => {
  const [count, classes] = golden.shape('logits');
  const score = (splitSize?: number) => {
    const all = new InceptionScore(classes, count, splitSize);
    all.add(golden.values('logits'));
    return all.inOrder;
  };
  it('in one split', () => {
    expect(count).toBe(300);
    expectWithin(score(), expected('inception_score_all'), 1e-6);
  });
  it('in splits of 50', () => {
    expectWithin(score(50), expected('inception_score_split50'), 1e-6);
  });
});

it('precision and recall goldens', async () => {
  expect(await precisionRecall(a, b, D)).toEqual({
    precision: expected('precision'),
    recall: expected('recall'),
  });
});

it.each([0, 1])('PSNR golden of image %i', (image) => {
  const size = golden.values('psnr.x').length / 2;
  const [x, y] = ['psnr.x', 'psnr.y'].map((key) =>
    golden.values(key).subarray(image * size, (image + 1) * size),
  );
  expectWithin(psnr(x, y, 1), expected(`psnr_${image}`), 1e-6);
});
