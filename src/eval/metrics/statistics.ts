import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { DataError } from '../../errors.js';

/** Mean and covariance of a set of features. */
export interface Gaussian {
  /** (D) */
  mean: Float64Array;
  /** (D, D), row-major, with the divisor N − 1 */
  covariance: Float64Array;
}

/** A feature's parts are whole numbers of at most this size, */
const PART = 2 ** 7;
/** so that a sum of so many of their products is at most 2²⁴: exact in float32, in whatever order it is added up. */
const BLOCK = 2 ** 10;
/** How much smaller each part's unit is than that of the part before. */
const FINER = 2 * PART;
/** Together they have the 24 bits of float32. */
const PARTS = 3;

/** BLOCK rows at the most: parts[0] + parts[1] / FINER + parts[2] / FINER², in units for each column. */
interface SplitBlock {
  parts: Float32Array[];
  /** (D) */
  units: Float64Array;
}

/**
 * Mean and covariance of features in one pass and constant memory. The products are the engine's, which has float32
 * alone, and yet they are exact: features are rounded to 24 bits of their column's range in a block, and taken as three
 * parts of 8 bits, whose products are small whole numbers. So the covariance is that of real vectors: where there are
 * few images its zero eigenvalues stay zero, whose square roots would otherwise make much of the least error.
 * The mean is of the features as they are. Sums are taken around the first row, so that a large common offset costs
 * no digits.
 */
export class FeatureStatistics {
  count = 0;
  private shift?: Float32Array;
  private readonly sum: Float64Array;
  /** Of the rounded features. */
  private readonly roundedSum: Float64Array;
  /** Σ (x − shift)(x − shift)ᵀ, the upper triangle, of all rows but the pending */
  private readonly products: Float64Array;
  private pending = new Float32Array(0);
  private pendingRows = 0;

  constructor(readonly dimensions: number) {
    this.sum = new Float64Array(dimensions);
    this.roundedSum = new Float64Array(dimensions);
    this.products = new Float64Array(dimensions * dimensions);
  }

  /** Adds rows (n, D), row-major. Throws DataError if they are not finite. */
  add(rows: Float32Array): void {
    const d = this.dimensions;
    this.shift ??= rows.slice(0, d);
    this.count += rows.length / d;
    if (this.pending.length === 0) this.pending = new Float32Array(BLOCK * d);
    for (let at = 0; at < rows.length; ) {
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
    const { count, dimensions: d, sum, roundedSum, products, shift } = this;
    if (!shift || count < 2)
      throw new DataError(`${count} image is too few for a Fréchet distance; give at least 2`);
    const covariance = new Float64Array(d * d);
    for (let i = 0; i < d; i++)
      for (let j = i; j < d; j++) {
        const value = (products[i * d + j] - (roundedSum[i] * roundedSum[j]) / count) / (count - 1);
        covariance[i * d + j] = value;
        covariance[j * d + i] = value;
      }
    return { mean: Float64Array.from(shift, (value, i) => value + sum[i] / count), covariance };
  }

  /** Brings the pending rows into sums and products. */
  private flush(): void {
    const { dimensions: d, pendingRows: n, products } = this;
    const { parts, units } = this.split(this.pending.subarray(0, n * d));
    this.pendingRows = 0;
    const tensors = parts.map((values) => tf.tensor2d(values, [n, d]));
    for (let a = 0; a < PARTS; a++)
      for (let b = a; b < PARTS; b++) {
        const product = inFloat32(() => tf.matMul(tensors[a], tensors[b], true));
        const values = product.dataSync<'float32'>();
        product.dispose();
        const scale = 1 / FINER ** (a + b);
        for (let i = 0; i < d; i++) {
          const unit = scale * units[i];
          for (let j = i, at = i * d + i; j < d; j++, at++)
            products[at] += (a === b ? values[at] : values[at] + values[j * d + i]) * unit * units[j];
        }
      }
    tf.dispose(tensors);
  }

  /** The parts of the rows (n, D) less the shift; their sums are taken too. */
  private split(rows: Float32Array): SplitBlock {
    const { dimensions: d, sum, roundedSum } = this;
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
    // Powers of two, so that nothing below is rounded but by Math.round.
    const units = largest.map((value) => (value === 0 ? 1 : 2 ** Math.ceil(Math.log2(value / PART))));
    const parts = Array.from({ length: PARTS }, () => new Float32Array(rows.length));
    for (let at = 0; at < rows.length; at += d)
      for (let i = 0; i < d; i++) {
        let rest = (rows[at + i] - shift[i]) / units[i];
        let rounded = 0;
        let scale = units[i];
        for (const part of parts) {
          const whole = Math.round(rest);
          part[at + i] = whole;
          rest = (rest - whole) * FINER;
          rounded += whole * scale;
          scale /= FINER;
        }
        roundedSum[i] += rounded;
      }
    return { parts, units };
  }
}
