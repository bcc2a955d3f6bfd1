import { symmetricEigenvalues } from '../linalg/eigen.js';
import type { Gaussian } from './statistics.js';

/** Columns that a product takes at a time, for what it reads to stay in the cache. */
const TILE = 256;

/**
 * The dot products of the rows `order[from]`, `order[from + 1]`, … of a matrix (n, n) with its row `pivot`, over the
 * first `count` columns: into `out` from `from` on. Four rows at a time; at the end some are done twice.
 */
function dotProducts(
  matrix: Float64Array,
  order: Uint32Array,
  from: number,
  pivot: number,
  count: number,
  out: Float64Array,
): void {
  const n = order.length;
  const row = matrix.slice(pivot * n, pivot * n + count);
  for (let p = from; p < n; p += 4) {
    const [p1, p2, p3] = [Math.min(p + 1, n - 1), Math.min(p + 2, n - 1), Math.min(p + 3, n - 1)];
    const [r0, r1, r2, r3] = [order[p] * n, order[p1] * n, order[p2] * n, order[p3] * n];
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let k = 0; k < count; k++) {
      const factor = row[k];
      s0 += matrix[r0 + k] * factor;
      s1 += matrix[r1 + k] * factor;
      s2 += matrix[r2 + k] * factor;
      s3 += matrix[r3 + k] * factor;
    }
    out[p] = s0;
    out[p1] = s1;
    out[p2] = s2;
    out[p3] = s3;
  }
}

/** A positive semidefinite matrix (n, n) as L·Lᵀ, its rows and columns in the order of the pivots. */
interface Cholesky {
  /** Lᵀ (rank, n), upper triangular. */
  transposed: Float64Array;
  rank: number;
  /** (n): which row of the matrix is the i-th here. */
  order: Uint32Array;
}

/**
 * Cholesky's factorization with pivoting (Golub & Van Loan, Matrix Computations, 4.2.8): it ends where the rest is zero
 * to rounding, so that rank-deficient covariances are no special case.
 */
function pivotedCholesky(matrix: Float64Array, n: number): Cholesky {
  const rest = Float64Array.from({ length: n }, (_, i) => matrix[i * n + i]);
  const tolerance = n * Number.EPSILON * Math.max(...rest);
  const order = Uint32Array.from(rest, (_, i) => i);
  const l = new Float64Array(n * n);
  const products = new Float64Array(n);
  let rank = 0;
  for (; rank < n; rank++) {
    let place = rank;
    for (let p = rank + 1; p < n; p++) if (rest[order[p]] > rest[order[place]]) place = p;
    const pivot = order[place];
    if (rest[pivot] <= tolerance) break;
    order[place] = order[rank];
    order[rank] = pivot;
    const root = Math.sqrt(rest[pivot]);
    l[pivot * n + rank] = root;
    dotProducts(l, order, rank + 1, pivot, rank, products);
    for (let p = rank + 1; p < n; p++) {
      const i = order[p];
      const value = (matrix[pivot * n + i] - products[p]) / root;
      l[i * n + rank] = value;
      rest[i] -= value * value;
    }
  }
  const transposed = new Float64Array(rank * n);
  for (let p = 0; p < n; p++) for (let k = 0; k < rank; k++) transposed[k * n + p] = l[order[p] * n + k];
  return { transposed, rank, order };
}

/** Rows of A and of B that are multiplied at a time. */
const [A_ROWS, B_ROWS] = [2, 4];

/**
 * Columns `start` to `end` of a matrix (rows, n) in panels of `height` rows, each column's elements side by side: so a
 * product reads memory from front to back. Beyond the last row there are zeros.
 */
function packPanels(
  matrix: Float64Array,
  rows: number,
  n: number,
  start: number,
  end: number,
  height: number,
  out: Float64Array,
): void {
  out.fill(0);
  const width = end - start;
  for (let i = 0; i < rows; i++) {
    const panel = Math.floor(i / height) * height * width + (i % height);
    for (let k = 0; k < width; k++) out[panel + k * height] = matrix[i * n + start + k];
  }
}

/**
 * The upper triangle of A·Bᵀ: A (rows, n) upper triangular, B (bRows, n), the result (rows, bRows). `triangular` is 1 if
 * B is upper triangular too, else 0. Two rows by four at a time.
 */
function upperProduct(
  a: Float64Array,
  rows: number,
  b: Float64Array,
  bRows: number,
  n: number,
  triangular: 0 | 1,
): Float64Array {
  const height = Math.ceil(rows / A_ROWS) * A_ROWS;
  const width = Math.ceil(bRows / B_ROWS) * B_ROWS;
  const out = new Float64Array(height * width);
  const panelsA = new Float64Array(height * TILE);
  const panelsB = new Float64Array(width * TILE);
  for (let start = 0; start < n; start += TILE) {
    const end = Math.min(start + TILE, n);
    packPanels(a, rows, n, start, end, A_ROWS, panelsA);
    packPanels(b, bRows, n, start, end, B_ROWS, panelsB);
    for (let j = 0; j < width; j += B_ROWS) {
      const last = Math.min(j + B_ROWS, height, end);
      for (let i = 0; i < last; i += A_ROWS) {
        // Before this, A's or B's elements are zero.
        const skip = Math.max(start, i, j * triangular) - start;
        addProducts(panelsA, i, panelsB, j, skip, end - start, out, width);
      }
    }
  }
  return trimmed(out, width, rows, bRows);
}

/** Adds the products of the panels that begin at row i of A and row j of B, from column `skip` on. */
function addProducts(
  panelsA: Float64Array,
  i: number,
  panelsB: Float64Array,
  j: number,
  skip: number,
  columns: number,
  out: Float64Array,
  width: number,
): void {
  // Plain variables: destructuring would make an array each time.
  let s00 = 0;
  let s01 = 0;
  let s02 = 0;
  let s03 = 0;
  let s10 = 0;
  let s11 = 0;
  let s12 = 0;
  let s13 = 0;
  let x = i * columns + skip * A_ROWS;
  let y = j * columns + skip * B_ROWS;
  for (let k = skip; k < columns; k++, x += A_ROWS, y += B_ROWS) {
    const x0 = panelsA[x];
    const x1 = panelsA[x + 1];
    const y0 = panelsB[y];
    const y1 = panelsB[y + 1];
    const y2 = panelsB[y + 2];
    const y3 = panelsB[y + 3];
    s00 += x0 * y0;
    s01 += x0 * y1;
    s02 += x0 * y2;
    s03 += x0 * y3;
    s10 += x1 * y0;
    s11 += x1 * y1;
    s12 += x1 * y2;
    s13 += x1 * y3;
  }
  const o0 = i * width + j;
  const o1 = o0 + width;
  out[o0] += s00;
  out[o0 + 1] += s01;
  out[o0 + 2] += s02;
  out[o0 + 3] += s03;
  out[o1] += s10;
  out[o1 + 1] += s11;
  out[o1 + 2] += s12;
  out[o1 + 3] += s13;
}

/** The first `columns` of the first `rows` of a matrix with rows of `width`. */
function trimmed(matrix: Float64Array, width: number, rows: number, columns: number): Float64Array {
  if (width === columns) return matrix.subarray(0, rows * width);
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) out.set(matrix.subarray(i * width, i * width + columns), i * columns);
  return out;
}

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
