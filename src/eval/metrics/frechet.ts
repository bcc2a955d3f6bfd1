import type { Reporter } from '../../job/reporter.js';
import { pivotedCholesky } from '../linalg/cholesky.js';
import { symmetricEigenvalues } from '../linalg/eigen.js';
import { upperProduct } from '../linalg/product.js';
import type { Gaussian } from './statistics.js';

/**
 * tr √(Σ1·Σ2) = Σ √λ(Lᵀ·Σ2·L) with Σ1 = L·Lᵀ: the product is similar to a symmetric positive semidefinite matrix, whose
 * eigenvalues alone are needed.
 */
function traceOfRoot(sigma1: Float64Array, sigma2: Float64Array, n: number): number {
  const { transposed, rank, order } = pivotedCholesky(sigma1, n);
  const permuted = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) permuted[i * n + j] = sigma2[order[i] * n + order[j]];
  const product = upperProduct(transposed, rank, permuted, n, n, 0);
  const symmetric = upperProduct(product, rank, transposed, rank, n, 1);
  for (let i = 0; i < rank; i++)
    for (let j = 0; j < i; j++) symmetric[i * rank + j] = symmetric[j * rank + i];
  return symmetricEigenvalues(symmetric, rank).reduce((sum, value) => sum + Math.sqrt(Math.max(value, 0)), 0);
}

/**
 * ‖μ1 − μ2‖² + tr(Σ1 + Σ2 − 2√(Σ1·Σ2)): the Fréchet distance of two Gaussians (Heusel et al., 2017). With 2048
 * dimensions it takes seconds.
 */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  const n = a.mean.length;
  let distance = 0;
  for (let i = 0; i < n; i++)
    distance += (a.mean[i] - b.mean[i]) ** 2 + a.covariance[i * n + i] + b.covariance[i * n + i];
  return distance - 2 * traceOfRoot(a.covariance, b.covariance, n);
}

/** Warns where images are so few that the covariance is singular and dominates the Fréchet distance. */
export function warnOfFew(
  what: string,
  count: number,
  features: number,
  reporter: Pick<Reporter, 'warn'>,
): void {
  if (count <= features)
    reporter.warn(
      `${count} ${what} are too few for ${features} features: the Fréchet distance is far above that of many images; compare it only with results of as many images, and use 50,000 for numbers to publish`,
    );
}
