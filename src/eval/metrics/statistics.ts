import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { DataError } from '../../errors.js';

/** Mean and covariance of a set of features. */
export interface Gaussian {
  /** (D) */
  mean: Float64Array;
  /** (D, D), row-major, with the divisor N − 1. */
  covariance: Float64Array;
}

/** Parts of a feature are integers of at most this size. */
const PART = 2 ** 7;
/** Rows per block. A sum of this many products of parts is at most 2²⁴: exact in float32, in any order of summation. */
const BLOCK = 2 ** 10;
/** Ratio between the unit of a part and that of the next. */
const FINER = 2 * PART;
/** Parts per feature; together they have the 24 bits of float32. */
const PARTS = 3;

/** Up to BLOCK rows, as parts[0] + parts[1] / FINER + parts[2] / FINER² in a unit of each column. */
interface SplitBlock {
  parts: Float32Array[];
  /** (D) */
  units: Float64Array;
}

/**
 * Mean and covariance of features, in one pass and constant memory. Engines multiply in float32, and yet the products
 * are exact: features are rounded to 24 bits of their column's range within a block and split into three parts of 8 bits,
 * whose products are small integers. So the matrix is an exact covariance: with few images its zero eigenvalues stay
 * zero. Otherwise the square roots of the Fréchet distance would magnify their rounding errors. The mean is that of the
 * unrounded features. Sums are taken relative to the first row, so a large common offset costs no precision.
 */
export class FeatureStatistics {
  count = 0;
  private shift?: Float32Array;
  private readonly sum: Float64Array;
  /** Sum of the rounded features. */
  private readonly roundedSum: Float64Array;
  /** Upper triangle of Σ (x − shift)(x − shift)ᵀ over all rows that are not pending. */
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
    if (rows.length === 0) return;
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

  /** Adds the pending rows to sums and products. */
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

  /** Splits rows (n, D), relative to the shift, into parts, and adds them to the sums. */
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
    // Units are powers of two, so that only Math.round rounds.
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
