// Written by hand because it was measured faster than ml-matrix, which computes the eigenvectors too.

const MAX_ITERATIONS = 60;
/** Squared norms below this count as zero: their reciprocal would overflow. */
const TINY = 1e-290;

/**
 * All eigenvalues of a symmetric matrix (n, n), in no particular order: Householder's reduction to tridiagonal form,
 * then the implicit QL algorithm (Golub & Van Loan, Matrix Computations, 8.3). The matrix is overwritten.
 */
export function symmetricEigenvalues(a: Float64Array, n: number): Float64Array {
  const { diagonal, subdiagonal } = tridiagonalize(a, n);
  return tridiagonalEigenvalues(diagonal, subdiagonal);
}

/**
 * Works on the lower triangle, column by column. The rank-2 update of a step is done in the same pass over the matrix as
 * the product of the next step, because reading the matrix is what takes the time.
 */
function tridiagonalize(a: Float64Array, n: number): { diagonal: Float64Array; subdiagonal: Float64Array } {
  const diagonal = new Float64Array(n);
  const subdiagonal = new Float64Array(n);
  let [v, w, nextV, nextW] = [0, 1, 2, 3].map(() => new Float64Array(n));
  // At step k the update v·wᵀ + w·vᵀ of the previous step has not been applied yet.
  for (let k = 0; k < n - 1; k++) {
    diagonal[k] = a[k * n + k] - 2 * v[k] * w[k];
    let squares = 0;
    for (let i = k + 1; i < n; i++) {
      nextV[i] = a[i * n + k] - v[i] * w[k] - w[i] * v[k];
      squares += nextV[i] * nextV[i];
    }
    const first = nextV[k + 1];
    const alpha = first > 0 ? -Math.sqrt(squares) : Math.sqrt(squares);
    subdiagonal[k] = alpha;
    // The reflection I − β·v·vᵀ maps the column to (alpha, 0, …, 0).
    nextV[k + 1] = first - alpha;
    const norm = squares - first * first + nextV[k + 1] * nextV[k + 1];
    const beta = norm > TINY ? 2 / norm : 0;
    nextW.fill(0, k + 1);
    let i = k + 1;
    for (; i + 1 < n; i += 2) updateRows(a, n, k + 1, i, v, w, nextV, nextW);
    if (i < n) updateRow(a, n, k + 1, i, v, w, nextV, nextW);
    let product = 0;
    for (let i = k + 1; i < n; i++) {
      nextW[i] *= beta;
      product += nextW[i] * nextV[i];
    }
    const half = (beta * product) / 2;
    for (let i = k + 1; i < n; i++) nextW[i] -= half * nextV[i];
    [v, w, nextV, nextW] = [nextV, nextW, v, w];
  }
  diagonal[n - 1] = a[n * n - 1] - 2 * v[n - 1] * w[n - 1];
  return { diagonal, subdiagonal };
}

/**
 * Applies the update v·wᵀ + w·vᵀ to row i of the lower triangle, from column `first` on, and adds the row's part of the
 * product with `nextV` to `nextW`.
 */
function updateRow(
  a: Float64Array,
  n: number,
  first: number,
  i: number,
  v: Float64Array,
  w: Float64Array,
  nextV: Float64Array,
  nextW: Float64Array,
): void {
  const row = i * n;
  const [vi, wi, next] = [v[i], w[i], nextV[i]];
  let sum = 0;
  for (let j = first; j < i; j++) {
    const value = a[row + j] - vi * w[j] - wi * v[j];
    a[row + j] = value;
    sum += value * nextV[j];
    nextW[j] += value * next;
  }
  a[row + i] -= 2 * vi * wi;
  nextW[i] += sum + a[row + i] * next;
}

/** `updateRow` for the rows i and i + 1 together, so that each element of the vectors is read once for both. */
function updateRows(
  a: Float64Array,
  n: number,
  first: number,
  i: number,
  v: Float64Array,
  w: Float64Array,
  nextV: Float64Array,
  nextW: Float64Array,
): void {
  const [row, row1] = [i * n, (i + 1) * n];
  const [vi, wi, next] = [v[i], w[i], nextV[i]];
  const [vi1, wi1, next1] = [v[i + 1], w[i + 1], nextV[i + 1]];
  let [sum, sum1] = [0, 0];
  for (let j = first; j < i; j++) {
    // Plain variables: destructuring would allocate an array on each iteration.
    const vj = v[j];
    const wj = w[j];
    const nj = nextV[j];
    const value = a[row + j] - vi * wj - wi * vj;
    const value1 = a[row1 + j] - vi1 * wj - wi1 * vj;
    a[row + j] = value;
    a[row1 + j] = value1;
    sum += value * nj;
    sum1 += value1 * nj;
    nextW[j] += value * next + value1 * next1;
  }
  a[row + i] -= 2 * vi * wi;
  const between = a[row1 + i] - vi1 * w[i] - wi1 * v[i];
  a[row1 + i] = between;
  a[row1 + i + 1] -= 2 * vi1 * wi1;
  nextW[i] += sum + a[row + i] * next + between * next1;
  nextW[i + 1] += sum1 + between * next + a[row1 + i + 1] * next1;
}

/** Overwrites both arrays; returns the eigenvalues in `d`. */
function tridiagonalEigenvalues(d: Float64Array, e: Float64Array): Float64Array {
  const n = d.length;
  const largest = d.reduce((max, value, i) => Math.max(max, Math.abs(value) + Math.abs(e[i])), 0);
  // Relative to the whole matrix: where rounding replaced zeros, the neighbouring elements are as small.
  const negligible = Number.EPSILON * largest;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      while (m < n - 1 && !(Math.abs(e[m]) <= negligible)) m++;
      if (m === l) break;
      if (iteration === MAX_ITERATIONS)
        throw new Error('eigenvalues did not converge; is the matrix finite?');
      let g = (d[l + 1] - d[l]) / (2 * e[l]);
      let r = Math.hypot(g, 1);
      g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i];
        const b = c * e[i];
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1] -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return d;
}
