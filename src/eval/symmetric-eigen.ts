const MAX_ITERATIONS = 60;
/** A column's squared norm below which it counts as zero: its reciprocal would overflow. */
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
 * Works on the lower triangle, column by column. Each step's rank-2 update is made in the same pass over the matrix as
 * the next step's product, for the pass is what takes the time.
 */
function tridiagonalize(a: Float64Array, n: number): { diagonal: Float64Array; subdiagonal: Float64Array } {
  const diagonal = new Float64Array(n);
  const subdiagonal = new Float64Array(n);
  let [v, w, nextV, nextW] = [0, 1, 2, 3].map(() => new Float64Array(n));
  // Before step k the matrix from k on still lacks the update v·wᵀ + w·vᵀ.
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
    // The reflection I − β·v·vᵀ takes the column to (alpha, 0, …, 0).
    nextV[k + 1] = first - alpha;
    const norm = squares - first * first + nextV[k + 1] * nextV[k + 1];
    const beta = norm > TINY ? 2 / norm : 0;
    nextW.fill(0, k + 1);
    for (let i = k + 1; i < n; i++) {
      const row = i * n;
      const [vi, wi, next] = [v[i], w[i], nextV[i]];
      let sum = 0;
      for (let j = k + 1; j < i; j++) {
        const value = a[row + j] - vi * w[j] - wi * v[j];
        a[row + j] = value;
        sum += value * nextV[j];
        nextW[j] += value * next;
      }
      a[row + i] -= 2 * vi * wi;
      nextW[i] += sum + a[row + i] * next;
    }
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

/** Both arrays are overwritten; the result is `d`. */
function tridiagonalEigenvalues(d: Float64Array, e: Float64Array): Float64Array {
  const n = d.length;
  const largest = d.reduce((max, value, i) => Math.max(max, Math.abs(value) + Math.abs(e[i])), 0);
  // Of the whole matrix: what rounding left in place of zeros has no neighbours to be small beside.
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
