import type { Gaussian } from './statistics.js';
import { symmetricEigenvalues } from './symmetric-eigen.js';

/**
 * L (n, rank) with L·Lᵀ = matrix, by Cholesky's factorization with pivoting: it ends where the rest is zero to
 * rounding, so that rank-deficient covariances are no special case. Given by columns: column k at k·n.
 */
function pivotedCholesky(matrix: Float64Array, n: number): { columns: Float64Array; rank: number } {
  const rest = Float64Array.from({ length: n }, (_, i) => matrix[i * n + i]);
  const tolerance = n * Number.EPSILON * Math.max(...rest);
  const columns = new Float64Array(n * n);
  let rank = 0;
  for (; rank < n; rank++) {
    let pivot = 0;
    for (let i = 1; i < n; i++) if (rest[i] > rest[pivot]) pivot = i;
    if (!(rest[pivot] > tolerance)) break;
    const column = columns.subarray(rank * n, (rank + 1) * n);
    const root = Math.sqrt(rest[pivot]);
    column.set(matrix.subarray(pivot * n, (pivot + 1) * n));
    for (let k = 0; k < rank; k++) {
      const factor = columns[k * n + pivot];
      if (factor === 0) continue;
      for (let i = 0, at = k * n; i < n; i++) column[i] -= factor * columns[at + i];
    }
    for (let i = 0; i < n; i++) {
      column[i] = rest[i] === 0 ? 0 : column[i] / root; // rows done before are zero here
      rest[i] = Math.max(rest[i] - column[i] * column[i], 0);
    }
    rest[pivot] = 0;
  }
  return { columns: columns.subarray(0, rank * n), rank };
}

/** (rank, n) rows times a symmetric (n, n): (rank, n). */
function timesSymmetric(rows: Float64Array, rank: number, matrix: Float64Array, n: number): Float64Array {
  const out = new Float64Array(rank * n);
  for (let r = 0; r < rank; r++) {
    const to = out.subarray(r * n, (r + 1) * n);
    for (let k = 0; k < n; k++) {
      const factor = rows[r * n + k];
      if (factor === 0) continue;
      for (let j = 0, at = k * n; j < n; j++) to[j] += factor * matrix[at + j];
    }
  }
  return out;
}

/**
 * tr √(Σ1·Σ2) = Σ √λ(Lᵀ·Σ2·L) with Σ1 = L·Lᵀ: the product is similar to a symmetric positive semidefinite matrix, whose
 * eigenvalues alone are needed.
 */
function traceOfRoot(sigma1: Float64Array, sigma2: Float64Array, n: number): number {
  const { columns: l, rank } = pivotedCholesky(sigma1, n);
  const product = timesSymmetric(l, rank, sigma2, n);
  const symmetric = new Float64Array(rank * rank);
  for (let i = 0; i < rank; i++)
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let k = 0, a = i * n, b = j * n; k < n; k++) sum += product[a + k] * l[b + k];
      symmetric[i * rank + j] = sum;
      symmetric[j * rank + i] = sum;
    }
  return symmetricEigenvalues(symmetric, rank).reduce((sum, value) => sum + Math.sqrt(Math.max(value, 0)), 0);
}

/** ‖μ1 − μ2‖² + tr(Σ1 + Σ2 − 2√(Σ1·Σ2)): the Fréchet distance of two Gaussians (Heusel et al., 2017). */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  const n = a.mean.length;
  let distance = 0;
  for (let i = 0; i < n; i++)
    distance += (a.mean[i] - b.mean[i]) ** 2 + a.covariance[i * n + i] + b.covariance[i * n + i];
  return distance - 2 * traceOfRoot(a.covariance, b.covariance, n);
}
