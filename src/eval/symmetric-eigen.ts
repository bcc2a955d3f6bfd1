const MAX_ITERATIONS = 60;

/**
 * All eigenvalues of a symmetric matrix (n, n), in no particular order: Householder's reduction to tridiagonal form,
 * then the implicit QL algorithm (Golub & Van Loan, Matrix Computations, 8.3). The matrix is overwritten.
 */
export function symmetricEigenvalues(a: Float64Array, n: number): Float64Array {
  const { diagonal, subdiagonal } = tridiagonalize(a, n);
  return tridiagonalEigenvalues(diagonal, subdiagonal);
}

/** Works on the lower triangle, column by column; each step is one symmetric product and one rank-2 update. */
function tridiagonalize(a: Float64Array, n: number): { diagonal: Float64Array; subdiagonal: Float64Array } {
  const diagonal = new Float64Array(n);
  const subdiagonal = new Float64Array(n);
  const v = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k < n - 1; k++) {
    diagonal[k] = a[k * n + k];
    let squares = 0;
    for (let i = k + 1; i < n; i++) {
      v[i] = a[i * n + k];
      squares += v[i] * v[i];
    }
    const alpha = v[k + 1] > 0 ? -Math.sqrt(squares) : Math.sqrt(squares);
    subdiagonal[k] = alpha;
    // The reflection I − β·v·vᵀ takes the column to (alpha, 0, …, 0).
    const first = v[k + 1];
    v[k + 1] = first - alpha;
    const norm = squares - first * first + v[k + 1] * v[k + 1];
    if (norm === 0) continue;
    const beta = 2 / norm;
    w.fill(0, k + 1);
    for (let i = k + 1; i < n; i++) {
      const row = i * n;
      const vi = v[i];
      let sum = a[row + i] * vi;
      for (let j = k + 1; j < i; j++) {
        sum += a[row + j] * v[j];
        w[j] += a[row + j] * vi;
      }
      w[i] += sum;
    }
    let product = 0;
    for (let i = k + 1; i < n; i++) {
      w[i] *= beta;
      product += w[i] * v[i];
    }
    const half = (beta * product) / 2;
    for (let i = k + 1; i < n; i++) w[i] -= half * v[i];
    for (let i = k + 1; i < n; i++) {
      const row = i * n;
      const [vi, wi] = [v[i], w[i]];
      for (let j = k + 1; j <= i; j++) a[row + j] -= vi * w[j] + wi * v[j];
    }
  }
  diagonal[n - 1] = a[n * n - 1];
  return { diagonal, subdiagonal };
}

/** Both arrays are overwritten; the result is `d`. */
function tridiagonalEigenvalues(d: Float64Array, e: Float64Array): Float64Array {
  const n = d.length;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      for (; m < n - 1; m++) {
        const scale = Math.abs(d[m]) + Math.abs(d[m + 1]);
        if (Math.abs(e[m]) <= Number.EPSILON * scale) break;
      }
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
