import { describe, expect, it } from 'vitest';
import { DataError } from '../../src/errors.js';
import { symmetricEigenvalues } from '../../src/eval/linalg/eigen.js';
import { frechetDistance } from '../../src/eval/metrics/frechet.js';
import { InceptionScore, warnOfOrder } from '../../src/eval/metrics/inception-score.js';
import { precisionRecall } from '../../src/eval/metrics/precision-recall.js';
import { psnr } from '../../src/eval/metrics/psnr.js';
import { ssim } from '../../src/eval/metrics/ssim.js';
import { FeatureStatistics } from '../../src/eval/metrics/statistics.js';
import { CodebookUsage } from '../../src/models/tokenizer/codebook-usage.js';
import { Random } from '../../src/random.js';

function normals(count: number, seed: number): Float64Array {
  const random = Random.of(seed, 'test');
  return Float64Array.from({ length: count }, () => random.normal());
}

/** Q·diag(values)·Qᵀ with Q a product of random reflections. */
function withEigenvalues(values: readonly number[], seed: number): Float64Array {
  const n = values.length;
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) matrix[i * n + i] = values[i];
  for (let step = 0; step < 4; step++) {
    const v = normals(n, 10 * seed + step);
    const squares = v.reduce((sum, x) => sum + x * x, 0);
    const reflect = (at: (i: number) => number) => {
      let dot = 0;
      for (let i = 0; i < n; i++) dot += v[i] * matrix[at(i)];
      for (let i = 0; i < n; i++) matrix[at(i)] -= (2 * dot * v[i]) / squares;
    };
    for (let k = 0; k < n; k++) reflect((i) => i * n + k);
    for (let k = 0; k < n; k++) reflect((i) => k * n + i);
  }
  return matrix;
}

const sorted = (values: Iterable<number>) => [...values].sort((x, y) => x - y);

function expectEigenvalues(matrix: Float64Array, values: readonly number[]) {
  const actual = sorted(symmetricEigenvalues(matrix, values.length));
  const largest = Math.max(...values.map(Math.abs), Number.MIN_VALUE);
  sorted(values).forEach((value, i) => {
    expect(Math.abs(actual[i] - value) / largest).toBeLessThan(1e-13);
  });
}

describe('symmetricEigenvalues', () => {
  it('of 1 × 1 and 2 × 2 matrices', () => {
    expectEigenvalues(Float64Array.of(-3), [-3]);
    expectEigenvalues(Float64Array.of(0), [0]);
    expectEigenvalues(Float64Array.of(2, 1, 1, 2), [1, 3]);
    expectEigenvalues(Float64Array.of(0, -5, -5, 0), [5, -5]);
  });

  it('of a diagonal matrix, zeros included', () => {
    expectEigenvalues(Float64Array.of(4, 0, 0, 0, 0, 0, 0, 0, -1), [4, 0, -1]);
  });

  it('of the path graph of 40 nodes: 2 − 2·cos(π·k/40)', () => {
    const n = 40;
    const laplacian = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      laplacian[i * n + i] = i === 0 || i === n - 1 ? 1 : 2;
      if (i > 0) laplacian[i * n + i - 1] = laplacian[(i - 1) * n + i] = -1;
    }
    expectEigenvalues(
      laplacian,
      Array.from({ length: n }, (_, k) => 2 - 2 * Math.cos((Math.PI * k) / n)),
    );
  });

  it('of random matrices: any sign, repeated, and over many orders of magnitude', () => {
    const n = 70;
    const spread = [...normals(n, 1)];
    expectEigenvalues(withEigenvalues(spread, 1), spread);
    const repeated = Array.from({ length: n }, (_, i) => (i % 3) + 1);
    expectEigenvalues(withEigenvalues(repeated, 2), repeated);
    const graded = Array.from({ length: n }, (_, i) => 10 ** -i);
    expectEigenvalues(withEigenvalues(graded, 3), graded);
  });

  it('of rank-deficient matrices', () => {
    const n = 64;
    expectEigenvalues(new Float64Array(n * n).fill(3), [...new Array(n - 1).fill(0), 3 * n]);
    const deficient = Array.from({ length: n }, (_, i) => (i < 5 ? i + 1 : 0));
    expectEigenvalues(withEigenvalues(deficient, 4), deficient);
    expectEigenvalues(new Float64Array(n * n), new Array(n).fill(0));
  });

  it('of elements whose squares are too small for a float64', () => {
    const tiny = Float64Array.of(1, 1e-161, 2e-161, 1e-161, 2, 1e-161, 2e-161, 1e-161, 3);
    expectEigenvalues(tiny, [1, 2, 3]);
  });

  it('refuses numbers that are not finite', () => {
    expect(() => symmetricEigenvalues(new Float64Array(9).fill(Number.NaN), 3)).toThrow(/finite/);
  });
});

describe('frechetDistance', () => {
  it('of Gaussians with diagonal covariances: ‖μ1 − μ2‖² + Σ (σ1 − σ2)²', () => {
    // Sizes around the block size of the products.
    for (const n of [1, 2, 3, 5, 255, 258]) {
      const [mean1, mean2, sigma1, sigma2] = [0, 1, 2, 3].map((seed) => normals(n, seed).map(Math.abs));
      const diagonal = (sigma: Float64Array) => {
        const covariance = new Float64Array(n * n);
        sigma.forEach((value, i) => {
          covariance[i * n + i] = value * value;
        });
        return covariance;
      };
      let expected = 0;
      for (let i = 0; i < n; i++) expected += (mean1[i] - mean2[i]) ** 2 + (sigma1[i] - sigma2[i]) ** 2;
      const actual = frechetDistance(
        { mean: mean1, covariance: diagonal(sigma1) },
        { mean: mean2, covariance: diagonal(sigma2) },
      );
      expect(Math.abs(actual - expected) / expected).toBeLessThan(1e-11);
    }
  });

  it('of Gaussians whose full covariances have the same eigenvectors', () => {
    for (const n of [7, 261]) {
      const [first, second] = [20, 21].map((seed) => [...normals(n, seed)].map((x) => x * x));
      // A third of the eigenvalues are zero in one, another third in the other.
      for (let i = 0; i < n; i++) (i % 3 === 0 ? first : second)[i] *= i % 3 === 2 ? 1 : 0;
      const mean = new Float64Array(n);
      const actual = frechetDistance(
        { mean, covariance: withEigenvalues(first, 5) },
        { mean, covariance: withEigenvalues(second, 5) },
      );
      const expected = first.reduce((sum, x, i) => sum + (Math.sqrt(x) - Math.sqrt(second[i])) ** 2, 0);
      expect(Math.abs(actual - expected) / expected).toBeLessThan(1e-7);
    }
  });

  it('of one point to a Gaussian is the trace of its covariance', () => {
    const point = { mean: new Float64Array(3), covariance: new Float64Array(9) };
    const other = { mean: new Float64Array(3), covariance: withEigenvalues([1, 2, 4], 6) };
    expect(frechetDistance(point, other)).toBeCloseTo(7, 12);
    expect(frechetDistance(other, point)).toBeCloseTo(7, 12);
  });
});

describe('FeatureStatistics', () => {
  it('gives mean and covariance with the divisor N − 1', () => {
    const statistics = new FeatureStatistics(2);
    statistics.add(Float32Array.of(1, 10, 3, 14, 8, 0));
    expect(statistics.gaussian).toEqual({
      mean: Float64Array.of(4, 8),
      covariance: Float64Array.of(13, -22, -22, 52),
    });
  });

  it('gives the same for rows in several parts, and loses no digits to a large offset', () => {
    const [d, n] = [5, 150];
    const rows = Float32Array.from(normals(n * d, 7), (x) => Math.round(x * 64) / 64);
    const [whole, parts, far] = [0, 1, 2].map(() => new FeatureStatistics(d));
    whole.add(rows);
    for (const [from, to] of [
      [0, 1],
      [1, 70],
      [70, n],
    ])
      parts.add(rows.subarray(from * d, to * d));
    far.add(rows.map((value) => value + 2 ** 17)); // exact in float32
    expect(parts.count).toBe(n);
    for (let i = 0; i < d * d; i++) {
      expect(parts.gaussian.covariance[i]).toBeCloseTo(whole.gaussian.covariance[i], 12);
      expect(far.gaussian.covariance[i]).toBeCloseTo(whole.gaussian.covariance[i], 8);
    }
    expect(far.gaussian.mean[0]).toBeCloseTo(whole.gaussian.mean[0] + 2 ** 17, 8);
  });

  it('refuses a single image', () => {
    const statistics = new FeatureStatistics(2);
    statistics.add(Float32Array.of(1, 2));
    expect(() => statistics.gaussian).toThrow(DataError);
    expect(() => statistics.gaussian).toThrow('1 image is too few');
  });
});

describe('InceptionScore', () => {
  const inceptionScore = (logits: Float32Array, classes: number, splitSize?: number) => {
    const score = new InceptionScore(classes, logits.length / classes, splitSize);
    score.add(logits);
    return score.inOrder;
  };
  it('is the number of classes for certain and even predictions, 1 for predictions that are all the same', () => {
    const certain = Float32Array.from({ length: 8 * 4 }, (_, i) => ((i >> 2) % 4 === i % 4 ? 200 : 0));
    expect(inceptionScore(certain, 4)).toBeCloseTo(4, 12);
    const same = Float32Array.from({ length: 8 * 4 }, (_, i) => i % 4);
    expect(inceptionScore(same, 4)).toBeCloseTo(1, 12);
  });

  it('averages over splits, the last one shorter', () => {
    // Splits of 4, 4 and 2 images, of certain predictions: 4, 1 and 2 classes.
    const classes = [0, 1, 2, 3, 2, 2, 2, 2, 0, 3];
    const logits = Float32Array.from({ length: 40 }, (_, i) => (classes[i >> 2] === i % 4 ? 500 : -500));
    expect(inceptionScore(logits, 4, 4)).toBeCloseTo((4 + 1 + 2) / 3, 12);
  });
});

describe('the order of samples', () => {
  /** 50 certain predictions for each of 100 classes in splits of 500, like 50 for each of 1,000 in splits of 5,000. */
  const scoreOf = (classOf: (image: number) => number) => {
    const [classes, count] = [100, 5000];
    const score = new InceptionScore(classes, count, 500);
    const row = (image: number) =>
      Float32Array.from({ length: classes }, (_, c) => (c === classOf(image) ? 200 : 0));
    for (let image = 0; image < count; image++) score.add(row(image));
    const said: string[] = [];
    warnOfOrder(score, { warn: (message) => said.push(message) });
    return { inOrder: score.inOrder, dealt: score.dealt, said };
  };

  it('with classes in turn gives each split all classes', () => {
    const { inOrder, dealt, said } = scoreOf((image) => image % 100);
    expect(inOrder).toBeCloseTo(100, 9);
    expect(dealt).toBeGreaterThan(85); // with random splits of n, a share of about exp(−(C − 1)/2n) is left
    expect(said).toEqual([]);
  });

  it('sorted by class gives each split a few classes, and a warning', () => {
    const { inOrder, dealt, said } = scoreOf((image) => Math.floor(image / 50));
    expect(inOrder).toBeCloseTo(10, 9);
    expect(dealt).toBeGreaterThan(85);
    expect(said).toEqual([
      expect.stringMatching(
        /the samples are sorted by class: the inception score is 10\.0 .*, but 9\d\.\d over random splits/,
      ),
    ]);
  });
});

describe('precisionRecall', () => {
  it('of points on a line', async () => {
    // The 3rd neighbours of 0, 1, 2, 3 are at 3, 2, 2, 3; of 2.5, 10, 20, 30 at 27.5, 20, 17.5, 27.5.
    const reference = Float32Array.of(0, 1, 2, 3);
    const samples = Float32Array.of(2.5, 10, 20, 30);
    expect(await precisionRecall(reference, samples, 1)).toEqual({ precision: 0.25, recall: 1 });
    expect(await precisionRecall(samples, reference, 1)).toEqual({ precision: 1, recall: 0.25 });
  });

  it('matches the definition over many blocks of rows', async () => {
    const [d, n, m] = [4, 700, 300];
    const reference = Float32Array.from(normals(n * d, 8));
    const samples = Float32Array.from(normals(m * d, 9), (x) => 1.3 * x + 0.7);
    const distance = (x: Float32Array, i: number, y: Float32Array, j: number) => {
      let sum = 0;
      for (let k = 0; k < d; k++) sum += (x[i * d + k] - y[j * d + k]) ** 2;
      return sum;
    };
    const range = (length: number) => Array.from({ length }, (_, i) => i);
    const radii = (x: Float32Array, count: number) =>
      range(count).map((i) => sorted(range(count).map((j) => distance(x, i, x, j)))[3]);
    const [referenceRadii, sampleRadii] = [radii(reference, n), radii(samples, m)];
    const precise = range(m).filter((i) =>
      range(n).some((j) => distance(samples, i, reference, j) <= referenceRadii[j]),
    );
    const recalled = range(n).filter((j) =>
      range(m).some((i) => distance(samples, i, reference, j) <= sampleRadii[i]),
    );
    expect(await precisionRecall(reference, samples, d)).toEqual({
      precision: precise.length / m,
      recall: recalled.length / n,
    });
    expect(precise.length).toBeLessThan(m);
    expect(recalled.length).toBeLessThan(n);
  });
});

describe('ssim', () => {
  const [height, width] = [13, 16];
  const a = Uint8Array.from({ length: height * width * 3 }, (_, i) => (i * 37 + 11) % 256);
  const b = a.map((value, i) => Math.floor((value * 3) / 4) + ((i * 29) % 64));

  it('of an image and itself is 1', () => {
    expect(ssim(a, a, height, width, 255)).toBeCloseTo(1, 14);
  });

  it('of two images matches SciPy with a Gaussian filter of σ 1.5, truncated at 3.5 σ', () => {
    expect(ssim(a, b, height, width, 255)).toBeCloseTo(0.9371436588634774, 12);
    const scaled = [a, b].map((image) => Float64Array.from(image, (value) => value / 255));
    expect(ssim(scaled[0], scaled[1], height, width, 1)).toBeCloseTo(0.9371436588634774, 12);
  });

  it('of uniform images depends only on their brightness', () => {
    const plain = (value: number) => new Uint8Array(11 * 11 * 3).fill(value);
    const c1 = (0.01 * 255) ** 2;
    expect(ssim(plain(100), plain(50), 11, 11, 255)).toBeCloseTo((2 * 5000 + c1) / (12500 + c1), 9);
  });

  it('refuses images that are smaller than its window', () => {
    const small = new Uint8Array(10 * 20 * 3);
    expect(() => ssim(small, small, 10, 20, 255)).toThrow(DataError);
    expect(() => ssim(small, small, 10, 20, 255)).toThrow('10 × 20');
  });
});

it('psnr is in dB below the peak', () => {
  expect(psnr([0, 255, 10], [0, 255, 13], 255)).toBeCloseTo(10 * Math.log10(255 ** 2 / 3), 12);
  expect(psnr([0, 0], [0.1, -0.1], 1)).toBeCloseTo(20, 12);
  expect(psnr([1, 2], [1, 2], 255)).toBe(Number.POSITIVE_INFINITY);
});

it('CodebookUsage counts entries in use and the entropy of the choices', () => {
  const usage = new CodebookUsage(8);
  usage.add([0, 0, 5]);
  usage.add(Int32Array.of(7));
  expect(usage.used).toBe(3 / 8);
  expect(usage.entropy).toBeCloseTo(1.5, 14); // ½·1 + ¼·2 + ¼·2
  const even = new CodebookUsage(16);
  even.add(Array.from({ length: 32 }, (_, i) => i % 16));
  expect([even.used, even.entropy]).toEqual([1, 4]);
});
