import { describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import { kernelInceptionDistance, squaredDiscrepancy } from '../../src/eval/metrics/kid.js';
import { Random } from '../../src/random.js';
import { describeEngines } from '../support/engines.js';

const D = 8;

/**
 * Rows whose values are exact in float32. The goldens below are for the same rows in float64, from NumPy and torchmetrics:
 *
 *   def rows(n, d, a, b, scale, offset):
 *       i, k = np.mgrid[0:n, 0:d]
 *       return ((a * i + b * k * k + i * k) % 64) / 64 * scale + offset
 *   x, y = rows(40, 8, 37, 11, 1, 0), rows(40, 8, 29, 17, 0.75, 0.25)
 *   kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
 *   def mmd2(x, y):
 *       n, m, xx, yy = len(x), len(y), kernel(x, x), kernel(y, y)
 *       return (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) \
 *           - 2 * kernel(x, y).mean()
 */
function rows(count: number, a: number, b: number, scale: number, offset: number): Float32Array {
  return Float32Array.from({ length: count * D }, (_, at) => {
    const [i, k] = [Math.floor(at / D), at % D];
    return (((a * i + b * k * k + i * k) % 64) / 64) * scale + offset;
  });
}

const [x, y] = [rows(40, 37, 11, 1, 0), rows(40, 29, 17, 0.75, 0.25)];
/** torchmetrics.image.kid.poly_mmd(x, y), and mmd2(x, y) to 16 digits */
const FULL = 0.13010990337082706;
/** mmd2(x, y[:25]) */
const FULL_UNEQUAL = 0.12384720389809178;
/** KernelInceptionDistance(subsets=20000, subset_size=10) of torchmetrics 1.9 */
const SUBSETS_OF_10 = { mean: 0.1294, std: 0.0736 };

function normals(count: number, seed: number): Float32Array {
  const random = Random.of(seed, 'kid');
  return Float32Array.from({ length: count }, () => random.normal());
}

describeEngines('squared discrepancy', () => {
  it('matches NumPy and torchmetrics, also for sets of different sizes', () => {
    expect(squaredDiscrepancy(x, y, D)).toBeCloseTo(FULL, 6);
    expect(squaredDiscrepancy(x, y.subarray(0, 25 * D), D)).toBeCloseTo(FULL_UNEQUAL, 6);
  });

  it('is symmetric', () => {
    const few = y.subarray(0, 25 * D);
    expect(squaredDiscrepancy(few, x, D)).toBeCloseTo(squaredDiscrepancy(x, few, D), 9);
  });
});

describe('kernel inception distance', () => {
  it('of tiny sets has a closed form', async () => {
    await openEngine('cpu');
    // D = 1, k(x, y) = (xy + 1)³: within {0, 1}, k(0, 1) = 1; between {0, 1} and {0, 1}, the mean of 1, 1, 1, 8.
    const set = Float32Array.of(0, 1);
    expect(squaredDiscrepancy(set, set, 1)).toBe(1 + 1 - (2 * 11) / 4);
    // D = 2, one point each, twice: k(a, a) + k(b, b) − 2·k(a, b) with a = (2, 0), b = (0, 2): 27 + 27 − 2.
    expect(squaredDiscrepancy(Float32Array.of(2, 0, 2, 0), Float32Array.of(0, 2, 0, 2), 2)).toBe(52);
  });

  it('is unbiased: zero on average for sets of one distribution', () => {
    const estimates = Array.from({ length: 400 }, (_, i) =>
      squaredDiscrepancy(normals(12 * 4, 2 * i), normals(12 * 4, 2 * i + 1), 4),
    );
    const mean = estimates.reduce((sum, value) => sum + value, 0) / 400;
    const error = Math.sqrt(estimates.reduce((sum, value) => sum + (value - mean) ** 2, 0)) / 400;
    expect(Math.abs(mean)).toBeLessThan(3 * error);
    // An estimate that includes pairs of a row with itself would be about 2·(k(x, x) − k(x, x′)) / 12 = 1.2 too high.
    expect(error).toBeLessThan(0.1);
  });

  it('averages over subsets drawn without replacement', async () => {
    const result = await kernelInceptionDistance(x, y, D, { subsets: 2000, subsetSize: 10 });
    const error = SUBSETS_OF_10.std / Math.sqrt(2000);
    expect(Math.abs(result.kid - FULL)).toBeLessThan(3 * error);
    expect(Math.abs(result.kid - SUBSETS_OF_10.mean)).toBeLessThan(3 * error);
    expect(result.kid_std / SUBSETS_OF_10.std).toBeCloseTo(1, 1);
    expect(result.kid_subset).toBe(10);
  });

  it('uses all images if there are fewer than the subset size, and says so', async () => {
    const whole = await kernelInceptionDistance(x, y, D);
    expect(whole.kid).toBeCloseTo(FULL, 6);
    expect(whole.kid_std).toBeLessThan(1e-9);
    expect(whole.kid_subset).toBe(40);
    const few = await kernelInceptionDistance(x, y.subarray(0, 25 * D), D);
    expect(few.kid_subset).toBe(25);
    expect(few.kid_std).toBeGreaterThan(0.001);
  });

  it('gives the same every time', async () => {
    const [first, second] = [0, 1].map(() => kernelInceptionDistance(x, y, D, { subsetSize: 10 }));
    expect(await first).toEqual(await second);
  });
});
