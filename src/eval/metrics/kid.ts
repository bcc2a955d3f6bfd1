import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { turn } from '../../job/job.js';
import { Random } from '../../random.js';
import type { GenerationMetric } from './metric.js';

/** Random subsets that the estimate is averaged over, and images per subset. */
const SUBSETS = 100;
const SUBSET_SIZE = 1000;

export interface KidValues {
  /** Kernel inception distance, the mean over random subsets; absent where the reference only has statistics. */
  kid: number;
  /** Standard deviation of KID over the subsets. */
  kid_std: number;
  /** Images per subset of KID: 1,000, or the number of images of the smaller side if it has fewer. */
  kid_subset: number;
}

/**
 * Sum of k(x, y) = (x·y / D + 1)³ over all rows x of `a` and y of `b`, each (n, D); without the pairs of equal index if
 * `b` is `a`. The engine computes the dot products in float32; the kernel and its sum are float64.
 */
function kernelSum(a: tf.Tensor2D, b: tf.Tensor2D): number {
  const d = a.shape[1];
  const product = inFloat32(() => tf.matMul(a, b, false, true));
  const values = product.dataSync<'float32'>();
  product.dispose();
  const [rows, columns] = product.shape;
  let sum = 0;
  for (let i = 0, at = 0; i < rows; i++)
    for (let j = 0; j < columns; j++, at++) {
      if (a === b && i === j) continue;
      const base = values[at] / d + 1;
      sum += base * base * base;
    }
  return sum;
}

/**
 * Unbiased estimate of the squared maximum mean discrepancy between two distributions under the kernel of KID, from
 * samples `x` (N, D) and `y` (M, D), row-major, N and M at least 2:
 * Σ_{i≠j} k(xᵢ, xⱼ) / (N(N − 1)) + Σ_{i≠j} k(yᵢ, yⱼ) / (M(M − 1)) − 2·Σ k(xᵢ, yⱼ) / (NM). It can be negative.
 */
export function squaredDiscrepancy(x: Float32Array, y: Float32Array, d: number): number {
  const [n, m] = [x.length / d, y.length / d];
  const [a, b] = [tf.tensor2d(x, [n, d]), tf.tensor2d(y, [m, d])];
  const within = kernelSum(a, a) / (n * (n - 1)) + kernelSum(b, b) / (m * (m - 1));
  const between = kernelSum(a, b) / (n * m);
  tf.dispose([a, b]);
  return within - 2 * between;
}

/** `size` rows of a matrix (N, D), drawn at random without replacement. */
function drawRows(rows: Float32Array, d: number, size: number, random: Random): Float32Array {
  const drawn = new Float32Array(size * d);
  const order = Uint32Array.from({ length: rows.length / d }, (_, i) => i);
  for (let i = 0; i < size; i++) {
    const j = i + random.integer(order.length - i);
    [order[i], order[j]] = [order[j], order[i]];
    drawn.set(rows.subarray(order[i] * d, (order[i] + 1) * d), i * d);
  }
  return drawn;
}

/**
 * Kernel inception distance (Bińkowski et al., 2018, arXiv 1801.01401): mean and standard deviation of
 * `squaredDiscrepancy` over 100 random subsets of 1,000 images each, drawn without replacement. The subsets depend on
 * the numbers of images alone.
 * `reference` is (N, D) and `samples` (M, D), row-major, each with at least 2 rows.
 */
export async function kernelInceptionDistance(
  reference: Float32Array,
  samples: Float32Array,
  d: number,
  { subsets = SUBSETS, subsetSize = SUBSET_SIZE }: { subsets?: number; subsetSize?: number } = {},
): Promise<KidValues> {
  const size = Math.min(subsetSize, reference.length / d, samples.length / d);
  const random = Random.of(0, 'KID subsets');
  const estimates: number[] = [];
  for (let i = 0; i < subsets; i++) {
    const [x, y] = [drawRows(reference, d, size, random), drawRows(samples, d, size, random)];
    estimates.push(squaredDiscrepancy(x, y, d));
    await turn();
  }
  const mean = estimates.reduce((sum, value) => sum + value, 0) / subsets;
  const variance = estimates.reduce((sum, value) => sum + (value - mean) ** 2, 0) / subsets;
  return { kid: mean, kid_std: Math.sqrt(variance), kid_subset: size };
}

export const kid: GenerationMetric<KidValues> = {
  name: 'KID',
  needs: { samples: ['poolRows'], reference: ['poolRows'] },
  start: ({ dimensions }) => ({
    result: (samples, reference) =>
      kernelInceptionDistance(reference.poolRows, samples.poolRows, dimensions.pool),
  }),
};
