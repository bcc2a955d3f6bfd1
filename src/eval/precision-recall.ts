/** The neighbour whose distance is a feature's radius. */
const NEIGHBOUR = 3;
/** Features that either side has at the least. */
export const MIN_FEATURES = NEIGHBOUR + 1;
/** Rows whose distances to a block of other rows are held at once. */
const BLOCK = 256;

/** Share of samples within the reference's manifold, and of references within the samples'. */
export interface PrecisionRecall {
  precision: number;
  recall: number;
}

function squaredNorms(rows: Float32Array, d: number): Float64Array {
  return Float64Array.from({ length: rows.length / d }, (_, i) => {
    let sum = 0;
    for (let k = i * d; k < (i + 1) * d; k++) sum += rows[k] * rows[k];
    return sum;
  });
}

/** Squared distances of every row of `a` to every row of `b`, a block of rows of `a` at a time. */
function forEachDistances(
  a: Float32Array,
  b: Float32Array,
  d: number,
  each: (row: number, distances: Float64Array) => void,
): void {
  const [aNorms, bNorms] = [squaredNorms(a, d), squaredNorms(b, d)];
  const columns = bNorms.length;
  const block = new Float64Array(BLOCK * columns);
  for (let start = 0; start < aNorms.length; start += BLOCK) {
    const end = Math.min(start + BLOCK, aNorms.length);
    for (let j = 0; j < columns; j++)
      for (let i = start; i < end; i++) {
        let dot = 0;
        for (let k = 0, x = i * d, y = j * d; k < d; k++) dot += a[x + k] * b[y + k];
        block[(i - start) * columns + j] = Math.max(aNorms[i] + bNorms[j] - 2 * dot, 0);
      }
    for (let i = start; i < end; i++)
      each(i, block.subarray((i - start) * columns, (i - start + 1) * columns));
  }
}

/** Squared distance of each row to its 3rd nearest other row. */
function radii(rows: Float32Array, d: number): Float64Array {
  const out = new Float64Array(rows.length / d);
  forEachDistances(rows, rows, d, (row, distances) => {
    const nearest = new Array<number>(NEIGHBOUR).fill(Number.POSITIVE_INFINITY);
    for (let j = 0; j < distances.length; j++) {
      if (j === row || distances[j] >= nearest[NEIGHBOUR - 1]) continue;
      let place = NEIGHBOUR - 1;
      for (; place > 0 && nearest[place - 1] > distances[j]; place--) nearest[place] = nearest[place - 1];
      nearest[place] = distances[j];
    }
    out[row] = nearest[NEIGHBOUR - 1];
  });
  return out;
}

/**
 * Improved precision and recall (Kynkäänniemi et al., 2019) with k = 3, as the ADM evaluator does.
 * reference (N, D) and samples (M, D), row-major; at least MIN_FEATURES of each.
 */
export function precisionRecall(reference: Float32Array, samples: Float32Array, d: number): PrecisionRecall {
  const [referenceRadii, sampleRadii] = [radii(reference, d), radii(samples, d)];
  const recalled = new Uint8Array(referenceRadii.length);
  let precise = 0;
  forEachDistances(samples, reference, d, (sample, distances) => {
    let inside = 0;
    for (let j = 0; j < distances.length; j++) {
      if (distances[j] <= referenceRadii[j]) inside = 1;
      if (distances[j] <= sampleRadii[sample]) recalled[j] = 1;
    }
    precise += inside;
  });
  return {
    precision: precise / sampleRadii.length,
    recall: recalled.reduce((a, b) => a + b, 0) / recalled.length,
  };
}
