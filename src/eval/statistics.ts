import * as tf from '@tensorflow/tfjs';
import { DataError } from '../errors.js';

/** Mean and covariance of a set of features. */
export interface Gaussian {
  /** (D) */
  mean: Float64Array;
  /** (D, D), row-major, with the divisor N − 1 */
  covariance: Float64Array;
}

/** Coarse parts are integers of at most this size, */
const COARSE = 2 ** 7;
/** so that a sum of so many of their products is at most 2²⁴: exact in float32, in whatever order it is added up. */
const BLOCK = 2 ** 10;

/** BLOCK rows at the most, in units of a power of two for each column: coarse + fine, coarse whole numbers. */
interface SplitBlock {
  coarse: Float32Array;
  fine: Float32Array;
  /** coarse + fine / 2 */
  middle: Float32Array;
  /** (D) */
  units: Float64Array;
}

/**
 * Mean and covariance of features in one pass and constant memory. The engine, which has float32 alone, computes the
 * products, and loses nothing that matters: with x = c + f, c of 8 bits, xᵀx = cᵀc + mᵀf + (mᵀf)ᵀ with m = c + f/2. The
 * first is exact, the second small and its rounding 2⁻³² of the whole. Blocks are added up in float64. Sums are taken
 * around the first row, so that a large common offset costs no digits.
 */
export class FeatureStatistics {
  count = 0;
  private shift?: Float32Array;
  private readonly sum: Float64Array;
  /** Σ (x − shift)(x − shift)ᵀ, the upper triangle, of all rows but the pending */
  private readonly products: Float64Array;
  private pending = new Float32Array(0);
  private pendingRows = 0;

  constructor(readonly dimensions: number) {
    this.sum = new Float64Array(dimensions);
    this.products = new Float64Array(dimensions * dimensions);
  }

  /** Adds rows (n, D), row-major. Throws DataError if they are not finite. */
  add(rows: Float32Array): void {
    const d = this.dimensions;
    this.shift ??= rows.slice(0, d);
    this.count += rows.length / d;
    for (let at = 0; at < rows.length; ) {
      if (this.pendingRows === 0) this.pending = new Float32Array(BLOCK * d);
      const part = rows.subarray(at, at + (BLOCK - this.pendingRows) * d);
      this.pending.set(part, this.pendingRows * d);
      this.pendingRows += part.length / d;
      at += part.length;
      if (this.pendingRows === BLOCK) this.flush();
    }
  }

  /** Mean and covariance of all rows so far. Throws DataError if there are fewer than two. */
  get gaussian(): Gaussian {
    if (this.pendingRows > 0) this.flush();
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
    return { mean: Float64Array.from(shift, (value, i) => value + sum[i] / count), covariance };
  }

  /** Brings the pending rows into sums and products. */
  private flush(): void {
    const { dimensions: d, pendingRows: n, products } = this;
    const { coarse, fine, middle, units } = this.split(this.pending.subarray(0, n * d));
    this.pendingRows = 0;
    const [exact, rest] = tf.tidy(() => {
      const [c, f, m] = [coarse, fine, middle].map((values) => tf.tensor2d(values, [n, d]));
      const small = tf.matMul(m, f, true);
      return [tf.matMul(c, c, true), small.add(small.transpose())];
    });
    const [large, small] = [exact.dataSync(), rest.dataSync()];
    tf.dispose([exact, rest]);
    for (let i = 0; i < d; i++)
      for (let j = i, at = i * d + i; j < d; j++, at++)
        products[at] += (large[at] + small[at]) * units[i] * units[j];
  }

  /** The rows (n, D) less the shift as coarse and fine parts; their sum goes into `sum`. */
  private split(rows: Float32Array): SplitBlock {
    const { dimensions: d, sum } = this;
    const shift = this.shift!;
    const largest = new Float64Array(d);
    for (let at = 0; at < rows.length; at += d)
      for (let i = 0; i < d; i++) {
        const value = rows[at + i] - shift[i];
        sum[i] += value;
        largest[i] = Math.max(largest[i], Math.abs(value));
      }
    if (!sum.every(Number.isFinite))
      throw new DataError('the feature network gave numbers that are not finite; check its weights');
    const units = largest.map((value) => (value === 0 ? 1 : 2 ** Math.ceil(Math.log2(value / COARSE))));
    const [coarse, fine, middle] = [0, 1, 2].map(() => new Float32Array(rows.length));
    for (let at = 0; at < rows.length; at += d)
      for (let i = 0; i < d; i++) {
        const value = (rows[at + i] - shift[i]) / units[i];
        const whole = Math.round(value);
        coarse[at + i] = whole;
        fine[at + i] = value - whole;
        middle[at + i] = (value + whole) / 2;
      }
    return { coarse, fine, middle, units };
  }
}
