import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { turn } from '../../job/job.js';
import type { GenerationMetric } from './metric.js';

/** k: a feature's radius is the distance to its k-th nearest neighbour. */
export const NEIGHBOUR = 3;
/** The smallest number of images on either side. */
export const MIN_FEATURES = NEIGHBOUR + 1;
/** Rows per side whose products are computed at once. */
const BLOCK = 2048;
/** Unit roundoff of float32: the relative error of one operation. */
const ROUNDING = 2 ** -24;

export interface PrecisionRecall {
  /** Share of the samples within the reference's manifold; absent where the reference only has statistics. */
  precision: number;
  /** Share of the reference's images within the samples' manifold; absent like `precision`. */
  recall: number;
}

/** Features (N, D), row-major, and their norms. */
class Features {
  readonly count: number;
  /** (N) */
  readonly squaredNorms: Float64Array;
  readonly largestNorm: number;

  constructor(
    readonly rows: Float32Array,
    readonly dimensions: number,
  ) {
    this.count = rows.length / dimensions;
    this.squaredNorms = new Float64Array(this.count);
    for (let i = 0, at = 0; i < this.count; i++)
      for (let k = 0; k < dimensions; k++, at++) this.squaredNorms[i] += rows[at] * rows[at];
    this.largestNorm = Math.sqrt(this.squaredNorms.reduce((largest, norm) => Math.max(largest, norm), 0));
  }

  /** Rows from `start` on as a tensor (n, D), n ≤ BLOCK. */
  block(start: number): tf.Tensor2D {
    const { rows, dimensions: d } = this;
    const part = rows.subarray(start * d, (start + BLOCK) * d);
    return tf.tensor2d(part, [part.length / d, d]);
  }
}

/** Squared distance between row i of `a` and row j of `b`, in float64. */
function squaredDistance(a: Features, i: number, b: Features, j: number): number {
  const d = a.dimensions;
  let sum = 0;
  for (let k = 0, x = i * d, y = j * d; k < d; k++) {
    const difference = a.rows[x + k] - b.rows[y + k];
    sum += difference * difference;
  }
  return sum;
}

/** Products of the rows from `row` on of one set with the rows from `column` on of another. */
interface Products {
  row: number;
  column: number;
  rows: number;
  columns: number;
  /** (rows, columns) float32 */
  values: Float32Array;
}

/**
 * Dot products of all rows of `a` with all rows of `b`, computed by the engine, block by block. If `b` is `a`, only the
 * blocks on and above the diagonal.
 */
async function* products(a: Features, b: Features): AsyncGenerator<Products> {
  for (let row = 0; row < a.count; row += BLOCK) {
    const left = a.block(row);
    for (let column = a === b ? row : 0; column < b.count; column += BLOCK) {
      const right = b.block(column);
      const product = inFloat32(() => tf.matMul(left, right, false, true));
      const [rows, columns] = product.shape;
      yield { row, column, rows, columns, values: product.dataSync<'float32'>() };
      tf.dispose([right, product]);
      await turn();
    }
    left.dispose();
  }
}

/**
 * Error bound of squared distances computed from the engine's products, between each row of `a` and any row of `b`. A
 * float32 sum of D products is exact to D·2⁻²⁴·‖x‖·‖y‖ in any order of summation (Higham, Accuracy and Stability of
 * Numerical Algorithms, 3.1), and a distance contains it twice.
 */
function tolerances(a: Features, b: Features): Float64Array {
  const factor = 2 * a.dimensions * ROUNDING * b.largestNorm;
  return a.squaredNorms.map((norm) => factor * Math.sqrt(norm));
}

/** The distances of each row to the nearest of the rows considered so far. */
class Nearest {
  private readonly distances: Float64Array;

  constructor(private readonly features: Features) {
    this.distances = new Float64Array(features.count * NEIGHBOUR).fill(Number.POSITIVE_INFINITY);
  }

  /** Squared distance of row i to its k-th nearest neighbour so far. */
  radius(i: number): number {
    return this.distances[i * NEIGHBOUR + NEIGHBOUR - 1];
  }

  /** Inserts row j if it is among the nearest neighbours of row i. */
  consider(i: number, j: number): void {
    const { distances } = this;
    const [first, last] = [i * NEIGHBOUR, i * NEIGHBOUR + NEIGHBOUR - 1];
    // Row i has k copies already: no row is nearer, and there may be many more copies.
    if (distances[last] === 0) return;
    const distance = squaredDistance(this.features, i, this.features, j);
    if (distance >= distances[last]) return;
    let place = last;
    for (; place > first && distances[place - 1] > distance; place--) distances[place] = distances[place - 1];
    distances[place] = distance;
  }
}

/** Squared distance of each row to its k-th nearest other row. */
async function radii(features: Features): Promise<Float64Array> {
  const nearest = new Nearest(features);
  const tolerance = tolerances(features, features);
  const { squaredNorms } = features;
  for await (const { row, column, rows, columns, values } of products(features, features)) {
    // A distance above this cannot change the radius.
    const limit = (i: number) => nearest.radius(i) + tolerance[i];
    const limits = Float64Array.from({ length: columns }, (_, c) => limit(column + c));
    for (let r = 0, at = 0; r < rows; r++) {
      const i = row + r;
      let own = limit(i);
      const first = row === column ? r + 1 : 0;
      at += first;
      for (let c = first; c < columns; c++, at++) {
        const distance = squaredNorms[i] + squaredNorms[column + c] - 2 * values[at];
        if (distance <= own) {
          nearest.consider(i, column + c);
          own = limit(i);
        }
        if (distance <= limits[c]) {
          nearest.consider(column + c, i);
          limits[c] = limit(column + c);
        }
      }
    }
  }
  return Float64Array.from({ length: features.count }, (_, i) => nearest.radius(i));
}

/**
 * Improved precision and recall (Kynkäänniemi et al., 2019) with k = 3, as ADM's evaluator defines them: a feature lies
 * in a manifold if its squared distance to one of the manifold's features is at most that feature's radius. The result is
 * that of float64 distances: the engine's float32 products decide most pairs, and the others are computed again. Works
 * block by block, so it takes little memory beside the features.
 * `reference` is (N, D) and `samples` (M, D), row-major, each with at least MIN_FEATURES rows.
 */
export async function precisionRecall(
  reference: Float32Array,
  samples: Float32Array,
  dimensions: number,
): Promise<PrecisionRecall> {
  const [x, y] = [new Features(samples, dimensions), new Features(reference, dimensions)];
  const [sampleRadii, referenceRadii] = [await radii(x), await radii(y)];
  const tolerance = tolerances(x, y);
  const precise = new Uint8Array(x.count);
  const recalled = new Uint8Array(y.count);
  for await (const { row, column, rows, columns, values } of products(x, y)) {
    for (let r = 0, at = 0; r < rows; r++) {
      const i = row + r;
      for (let c = 0; c < columns; c++, at++) {
        const j = column + c;
        if (precise[i] && recalled[j]) continue;
        let distance = x.squaredNorms[i] + y.squaredNorms[j] - 2 * values[at];
        const [toReference, toSample] = [distance - referenceRadii[j], distance - sampleRadii[i]];
        if (Math.min(Math.abs(toReference), Math.abs(toSample)) <= tolerance[i])
          distance = squaredDistance(x, i, y, j);
        if (distance <= referenceRadii[j]) precise[i] = 1;
        if (distance <= sampleRadii[i]) recalled[j] = 1;
      }
    }
  }
  const share = (flags: Uint8Array) => flags.reduce((sum, flag) => sum + flag, 0) / flags.length;
  return { precision: share(precise), recall: share(recalled) };
}

export interface PrecisionRecallSettings {
  /** k: the radius of a feature, for precision and recall, is the distance to its k-th nearest neighbour. */
  neighbour: number;
}

export const precisionAndRecall: GenerationMetric<PrecisionRecall> = {
  name: 'precision and recall',
  needs: { samples: ['poolRows'], reference: ['poolRows'] },
  settings: { neighbour: NEIGHBOUR },
  start: ({ dimensions }) => ({
    result: (samples, reference) => precisionRecall(reference.poolRows, samples.poolRows, dimensions.pool),
  }),
};
