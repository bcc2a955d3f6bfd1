import { resamplingKernel } from '../data/images/resample.js';

/**
 * How an image's positions lie in a table: `front` learned rows that do not belong to the image, then k prefix rows, then g²
 * rows, row-major.
 */
export interface TableLayout {
  front: number;
  /** k: none, one for each patch of the image's first row, or one more in front of these, for the top-left patch. */
  prefix: number;
  /** g: patches along a side. */
  grid: number;
}

/** A stack of equal axes in memory: (outer, length, inner), row-major. */
interface Axis {
  outer: number;
  length: number;
  inner: number;
}

/** Resamples the middle axis of (outer, length, inner) to `target` positions. */
function resampleAxis(values: ArrayLike<number>, { outer, length, inner }: Axis, target: number) {
  const { starts, weights, taps } = resamplingKernel(length, target, 'bicubic');
  const out = new Float64Array(outer * target * inner);
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < target; i++)
      for (let k = 0; k < taps; k++) {
        const weight = weights[i * taps + k];
        if (weight === 0) continue;
        const to = (o * target + i) * inner;
        const from = (o * length + starts[i] + k) * inner;
        for (let c = 0; c < inner; c++) out[to + c] += weight * values[from + c];
      }
  return out;
}

const rows = ({ front, prefix, grid }: TableLayout) => front + prefix + grid * grid;

/** Throws RangeError unless one table can be made of the other. */
function check(values: Float32Array, width: number, from: TableLayout, to: TableLayout): void {
  if (values.length !== rows(from) * width)
    throw new RangeError(`${values.length} numbers are not ${rows(from)} rows of ${width}`);
  for (const { prefix, grid } of [from, to])
    if (![0, grid, grid + 1].includes(prefix))
      throw new RangeError(`a prefix of ${prefix} positions with ${grid} patches along a side`);
  if (from.front !== to.front)
    throw new RangeError(`${to.front} front rows cannot be made of ${from.front}: draw them anew`);
  if ((from.prefix === 0) !== (to.prefix === 0))
    throw new RangeError(`a prefix of ${to.prefix} positions cannot be made of ${from.prefix}`);
}

/**
 * Resamples a positional table (rows, width) of one layout to another, as vision transformers are fine-tuned at another image
 * size. The grid and, in one dimension, the prefix's row of patches are resampled by an antialiased bicubic filter with half-pixel
 * centres: PyTorch's `interpolate(mode='bicubic', align_corners=False, antialias=True)`. Front rows and the extra one of
 * the top-left patch are kept. If only the new layout has that one, it is a copy of the row's first. The same layout gives
 * the same values.
 * @throws RangeError if the table is of another size, or the layouts differ in `front` or in whether they have a prefix
 */
export function resamplePositions(
  values: Float32Array,
  width: number,
  from: TableLayout,
  to: TableLayout,
): Float32Array {
  check(values, width, from, to);
  const out = new Float32Array(rows(to) * width);
  const extra = from.prefix > from.grid ? 1 : 0;
  const kept = from.front + extra;
  const row = kept + (from.prefix > 0 ? from.grid : 0);
  const part = (start: number, end?: number) => values.subarray(start * width, end && end * width);

  const grid = from.grid === to.grid ? part(row) : resampleGrid(part(row), width, from.grid, to.grid);
  out.set(grid, (to.front + to.prefix) * width);
  out.set(part(0, from.front));
  if (to.prefix === 0) return out;
  const patches = part(kept, row);
  const axis = { outer: 1, length: from.grid, inner: width };
  const first = from.grid === to.grid ? patches : resampleAxis(patches, axis, to.grid);
  out.set(first, (to.front + to.prefix - to.grid) * width);
  if (to.prefix > to.grid)
    out.set(extra ? part(from.front, kept) : first.subarray(0, width), to.front * width);
  return out;
}

/** Resamples a square of positions, (g, g, width). */
function resampleGrid(values: Float32Array, width: number, from: number, to: number): Float64Array {
  const across = resampleAxis(values, { outer: from, length: from, inner: width }, to);
  return resampleAxis(across, { outer: 1, length: from, inner: to * width }, to);
}
