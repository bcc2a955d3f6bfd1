import { DataError } from '../../errors.js';
import { imageMean } from './image-mean.js';
import type { ReconstructionMetric } from './metric.js';

const [K1, K2] = [0.01, 0.03];
const RADIUS = 5;
const SIGMA = 1.5;

/** The normalised Gaussian of 11 taps. */
const WINDOW = (() => {
  const taps = Array.from({ length: 2 * RADIUS + 1 }, (_, i) =>
    Math.exp(-((i - RADIUS) ** 2) / (2 * SIGMA ** 2)),
  );
  const sum = taps.reduce((a, b) => a + b, 0);
  return Float64Array.from(taps, (tap) => tap / sum);
})();

/** Gaussian means over all windows that lie within the plane: (height, width) → (height − 10, width − 10). */
function windowMeans(plane: Float64Array, height: number, width: number): Float64Array {
  const [h, w] = [height - 2 * RADIUS, width - 2 * RADIUS];
  const across = new Float64Array(height * w);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < w; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW.length; k++) sum += WINDOW[k] * plane[y * width + x + k];
      across[y * w + x] = sum;
    }
  const out = new Float64Array(h * w);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW.length; k++) sum += WINDOW[k] * across[(y + k) * w + x];
      out[y * w + x] = sum;
    }
  return out;
}

/**
 * Structural similarity (Wang et al., 2004) of two images (height, width, 3): a Gaussian window of 11 × 11 and σ 1.5,
 * population variances, windows within the image only, the mean over colours. `range` is 255 or 1. Gives the same number as
 * scikit-image with `gaussian_weights` and without `use_sample_covariance`, which is why it is written by hand. Throws
 * DataError for images smaller than 11 × 11 pixels.
 */
export function ssim(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  height: number,
  width: number,
  range: number,
): number {
  if (Math.min(height, width) < WINDOW.length)
    throw new DataError(
      `images of ${height} × ${width} are smaller than SSIM's window; give at least ${WINDOW.length} × ${WINDOW.length}`,
    );
  const [c1, c2] = [(K1 * range) ** 2, (K2 * range) ** 2];
  let total = 0;
  for (let colour = 0; colour < 3; colour++) {
    const x = Float64Array.from({ length: height * width }, (_, i) => a[3 * i + colour]);
    const y = Float64Array.from({ length: height * width }, (_, i) => b[3 * i + colour]);
    const means = (plane: Float64Array) => windowMeans(plane, height, width);
    const [mx, my] = [means(x), means(y)];
    const [xx, yy] = [means(x.map((value) => value * value)), means(y.map((value) => value * value))];
    const xy = means(x.map((value, i) => value * y[i]));
    let sum = 0;
    for (let i = 0; i < mx.length; i++) {
      const [vx, vy, covariance] = [xx[i] - mx[i] ** 2, yy[i] - my[i] ** 2, xy[i] - mx[i] * my[i]];
      const luminance = (2 * mx[i] * my[i] + c1) / (mx[i] ** 2 + my[i] ** 2 + c1);
      sum += (luminance * (2 * covariance + c2)) / (vx + vy + c2);
    }
    total += sum / mx.length;
  }
  return total / 3;
}

export interface SsimValues {
  /** The mean over images of 8-bit reconstructions. */
  ssim: number;
}

export const ssimMetric: ReconstructionMetric<SsimValues> = {
  name: 'SSIM',
  start: ({ imageSize: size }) => imageMean('ssim', size, (x, y) => ssim(x, y, size, size, 255)),
};
