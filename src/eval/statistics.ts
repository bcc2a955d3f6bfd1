import { DataError } from '../errors.js';

/** Mean and covariance of a set of features. */
export interface Gaussian {
  /** (D) */
  mean: Float64Array;
  /** (D, D), row-major, with the divisor N − 1 */
  covariance: Float64Array;
}

/** Rows are added in blocks of so many, which stay in the cache while they meet every pair of dimensions. */
const BLOCK = 64;

/**
 * Mean and covariance of features in one pass and constant memory. Sums are taken around the first row, so that a
 * large common offset costs no digits.
 */
export class FeatureStatistics {
  count = 0;
  private shift?: Float64Array;
  private readonly sum: Float64Array;
  /** Σ (x − shift)(x − shift)ᵀ, the upper triangle */
  private readonly products: Float64Array;

  constructor(readonly dimensions: number) {
    this.sum = new Float64Array(dimensions);
    this.products = new Float64Array(dimensions * dimensions);
  }

  /** Adds rows (n, D), row-major. */
  add(rows: Float32Array | Float64Array): void {
    const d = this.dimensions;
    const n = rows.length / d;
    this.shift ??= Float64Array.from(rows.subarray(0, d));
    // Columns of a block are contiguous, so that the innermost loop below is a dot product.
    const columns = new Float64Array(d * BLOCK);
    for (let start = 0; start < n; start += BLOCK) {
      const size = Math.min(BLOCK, n - start);
      for (let i = 0; i < d; i++) {
        let sum = 0;
        for (let r = 0; r < size; r++) {
          const value = rows[(start + r) * d + i] - this.shift[i];
          columns[i * BLOCK + r] = value;
          sum += value;
        }
        this.sum[i] += sum;
      }
      for (let i = 0; i < d; i++)
        for (let j = i; j < d; j++) {
          let sum = 0;
          for (let r = 0, a = i * BLOCK, b = j * BLOCK; r < size; r++) sum += columns[a + r] * columns[b + r];
          this.products[i * d + j] += sum;
        }
    }
    this.count += n;
  }

  /** Mean and covariance of all rows so far. Throws DataError if there are fewer than two. */
  get gaussian(): Gaussian {
    const { count, dimensions: d, sum, products, shift } = this;
    if (!shift || count < 2)
      throw new DataError(`${count} image is too few for a Fréchet distance; give at least 2`);
    const covariance = new Float64Array(d * d);
    for (let i = 0; i < d; i++)
      for (let j = i; j < d; j++) {
        const value = (products[i * d + j] - (sum[i] * sum[j]) / count) / (count - 1);
        covariance[i * d + j] = value;
        covariance[j * d + i] = value;
      }
    return { mean: shift.map((value, i) => value + sum[i] / count), covariance };
  }
}
