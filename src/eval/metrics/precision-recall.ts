import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { turn } from '../../job/turn.js';

/** The neighbour whose distance is a feature's radius. */
export const NEIGHBOUR = 3;
/** Features that either side has at the least. */
export const MIN_FEATURES = NEIGHBOUR + 1;
/** Rows of either side whose distances are held at once. */
const BLOCK = 2048;
/** Half the distance from 1 to the next float32: what one operation rounds by, relative. */
const ROUNDING = 2 ** -24;

/** Share of samples within the reference's manifold, and of references within the samples'. */
export interface PrecisionRecall {
  precision: number;
  recall: number;
}

/** Features (N, D), row-major, with what their distances are made of. */
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

  /** Rows from `start` on as a tensor (n, D), BLOCK at the most. */
  block(start: number): tf.Tensor2D {
    const { rows, dimensions: d } = this;
    const part = rows.subarray(start * d, (start + BLOCK) * d);
    return tf.tensor2d(part, [part.length / d, d]);
  }
}

/** The squared distance of row i of `a` to row j of `b`, in float64. */
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
 * All products of rows of `a` with rows of `b`, a block after the other, computed by the engine. With `b` = `a` only
 * blocks from the diagonal on.
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
 * By how much a distance from the engine's products may be wrong, for each row of `a` and any of `b`: its float32 sum
 * of D products is within D·2⁻²⁴·‖x‖·‖y‖ in whatever order it is added up (Higham, Accuracy and Stability of Numerical
 * Algorithms, 3.1), and counts twice.
 */
function tolerances(a: Features, b: Features): Float64Array {
  const factor = 2 * a.dimensions * ROUNDING * b.largestNorm;
  return a.squaredNorms.map((norm) => factor * Math.sqrt(norm));
}

/** The distances of each row to its nearest others, as far as they are known. */
class Nearest {
  private readonly distances: Float64Array;

  constructor(private readonly features: Features) {
    this.distances = new Float64Array(features.count * NEIGHBOUR).fill(Number.POSITIVE_INFINITY);
  }

  /** The largest that counts for row i. */
  radius(i: number): number {
    return this.distances[i * NEIGHBOUR + NEIGHBOUR - 1];
  }

  /** Row j is perhaps among the nearest of row i. */
  consider(i: number, j: number): void {
    const { distances } = this;
    const [first, last] = [i * NEIGHBOUR, i * NEIGHBOUR + NEIGHBOUR - 1];
    // Copies of an image: nothing is nearer, and there may be many.
    if (distances[last] === 0) return;
    const distance = squaredDistance(this.features, i, this.features, j);
    if (distance >= distances[last]) return;
    let place = last;
    for (; place > first && distances[place - 1] > distance; place--) distances[place] = distances[place - 1];
    distances[place] = distance;
  }
}

/** Squared distance of each row to its 3rd nearest other row. */
async function radii(features: Features): Promise<Float64Array> {
  const nearest = new Nearest(features);
  const tolerance = tolerances(features, features);
  const { squaredNorms } = features;
  for await (const { row, column, rows, columns, values } of products(features, features)) {
    // What a distance must be below to be looked at, for the rows and for the columns of the block.
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
 * Improved precision and recall (Kynkäänniemi et al., 2019) with k = 3, as the ADM evaluator defines them: a feature is
 * in a manifold if its squared distance to one of the features there is at most that one's radius. Distances are as of
 * float64: the engine's products in float32 tell which pairs have to be looked at again. Blockwise: besides the
 * features themselves it takes little memory.
 * reference (N, D) and samples (M, D), row-major; at least MIN_FEATURES of each.
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
