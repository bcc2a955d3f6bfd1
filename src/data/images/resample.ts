import type { Image } from './decode.js';

// Pillow's resampling, to the bit: published weights were trained and are evaluated with it, and sharp rounds differently.

/** A resampling filter: its radius in source pixels, and its weight at distance `x`. */
interface Filter {
  readonly support: number;
  weight(x: number): number;
}

const FILTERS = {
  box: { support: 0.5, weight: (x: number) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  // Keys' cubic with a = −0.5
  bicubic: {
    support: 2,
    weight: (x: number) => {
      const t = Math.abs(x);
      if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
      return t < 2 ? -0.5 * (((t - 5) * t + 8) * t - 4) : 0;
    },
  },
} satisfies Record<string, Filter>;

export type FilterName = keyof typeof FILTERS;

/** Fractional bits of the integer weights: 255 times their sum stays within 32 bits. */
const PRECISION = 22;
const HALF = 1 << (PRECISION - 1);

/** For each output position: the first source position, and `taps` weights, whose sum is 1. */
export interface Kernel {
  readonly starts: Int32Array;
  readonly weights: Float64Array;
  readonly taps: number;
}

/**
 * The weights that resample `source` positions to `target` with half-pixel centres. Reductions widen the filter, which gives
 * antialiasing. Pillow computes them so, and PyTorch's `interpolate` with `antialias=True`.
 */
export function resamplingKernel(source: number, target: number, filter: FilterName): Kernel {
  const { support, weight } = FILTERS[filter];
  const scale = source / target;
  const widening = Math.max(1, scale);
  const radius = support * widening;
  const taps = Math.min(source, Math.ceil(radius) * 2 + 1);
  const starts = new Int32Array(target);
  const weights = new Float64Array(target * taps);
  for (let i = 0; i < target; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - radius + 0.5));
    const end = Math.min(source, Math.trunc(centre + radius + 0.5));
    // Every position has `taps` weights; near the far end the window is shifted back and starts with zeros.
    starts[i] = Math.min(first, source - taps);
    const row = i * taps - starts[i];
    let sum = 0;
    for (let j = first; j < end; j++) {
      weights[row + j] = weight((j - centre + 0.5) / widening);
      sum += weights[row + j];
    }
    for (let j = first; j < end; j++) weights[row + j] /= sum;
  }
  return { starts, weights, taps };
}

/** The weights as integers with `PRECISION` fractional bits. */
function fixedKernel(source: number, target: number, filter: FilterName) {
  const { starts, weights, taps } = resamplingKernel(source, target, filter);
  const fixed = Int32Array.from(weights, (weight) => {
    const w = weight * (1 << PRECISION);
    return Math.trunc(w < 0 ? w - 0.5 : w + 0.5);
  });
  return { starts, weights: fixed, taps };
}

function resampleRows(source: Uint8Array, width: number, height: number, target: number, filter: FilterName) {
  const { starts, weights, taps } = fixedKernel(width, target, filter);
  const out = new Uint8ClampedArray(target * height * 3);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < target; x++, o += 3) {
      let p = (y * width + starts[x]) * 3;
      let r = HALF;
      let g = HALF;
      let b = HALF;
      for (let k = x * taps, end = k + taps; k < end; k++, p += 3) {
        const w = weights[k];
        r += Math.imul(source[p], w);
        g += Math.imul(source[p + 1], w);
        b += Math.imul(source[p + 2], w);
      }
      out[o] = r >> PRECISION;
      out[o + 1] = g >> PRECISION;
      out[o + 2] = b >> PRECISION;
    }
  }
  return new Uint8Array(out.buffer);
}

function resampleColumns(
  source: Uint8Array,
  width: number,
  height: number,
  target: number,
  filter: FilterName,
) {
  const { starts, weights, taps } = fixedKernel(height, target, filter);
  const row = width * 3;
  const out = new Uint8ClampedArray(target * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < target; y++) {
    sums.fill(HALF);
    for (let k = 0; k < taps; k++) {
      const w = weights[y * taps + k];
      if (w === 0) continue;
      const line = (starts[y] + k) * row;
      for (let x = 0; x < row; x++) sums[x] += Math.imul(source[line + x], w);
    }
    for (let x = 0; x < row; x++) out[y * row + x] = sums[x] >> PRECISION;
  }
  return new Uint8Array(out.buffer);
}

/**
 * Resamples an image (H, W, 3) to (`height`, `width`, 3) with an antialiased, half-pixel-centred filter, rows first, in the
 * fixed-point arithmetic of Pillow, which the reference implementation's preprocessing uses. Written by hand because
 * libvips aligns its bicubic enlargement with the corners and has no box filter for odd sizes.
 */
export function resample(image: Image, width: number, height: number, filter: FilterName): Image {
  let { data } = image;
  if (width !== image.width) {
    data = resampleRows(data, image.width, image.height, width, filter);
  }
  if (height !== image.height) {
    data = resampleColumns(data, width, image.height, height, filter);
  }
  return { width, height, data };
}
