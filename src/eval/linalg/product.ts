// Written by hand because it was measured faster than ml-matrix: it computes only the triangle that is needed, in
// float64, which the engines do not have.

/** Columns multiplied at a time, so that the operands stay in the cache. */
const TILE = 256;

/** Rows of A and of B that are multiplied at a time. */
const [A_ROWS, B_ROWS] = [2, 4];

/**
 * Copies columns `start` to `end` of a matrix (rows, n) into panels of `height` rows, in which the elements of a column
 * are adjacent, so that the product reads memory sequentially. The last panel is padded with zeros.
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
 * The upper triangle of A·Bᵀ, where A (rows, n) is upper triangular and B is (bRows, n); the result is (rows, bRows).
 * `triangular` is 1 if B is upper triangular too, otherwise 0. Two rows by four at a time.
 */
export function upperProduct(
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
        // Columns before this one are zero in A or in B.
        const skip = Math.max(start, i, j * triangular) - start;
        addProducts(panelsA, i, panelsB, j, skip, end - start, out, width);
      }
    }
  }
  return trimmed(out, width, rows, bRows);
}

/** Adds the products of the panels that start at row i of A and row j of B, from column `skip` on. */
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
  // Plain variables: destructuring would allocate an array on each call.
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

/** The upper left part (rows, columns) of a matrix whose rows have `width` elements. */
function trimmed(matrix: Float64Array, width: number, rows: number, columns: number): Float64Array {
  if (width === columns) return matrix.subarray(0, rows * width);
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) out.set(matrix.subarray(i * width, i * width + columns), i * columns);
  return out;
}
