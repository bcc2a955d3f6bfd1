import { imageMean } from './image-mean.js';
import type { ReconstructionMetric } from './metric.js';

/** Mean squared error of two arrays of equal length. */
export function meanSquaredError(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) ** 2;
  return sum / x.length;
}

/** Peak signal-to-noise ratio in dB; `peak` is the largest possible value, 255 or 1. Infinite for equal arrays. */
export function psnr(x: ArrayLike<number>, y: ArrayLike<number>, peak: number): number {
  return 10 * Math.log10(peak ** 2 / meanSquaredError(x, y));
}

export interface PsnrValues {
  /** In dB, the mean over images of 8-bit reconstructions. */
  psnr: number;
}

export const psnrMetric: ReconstructionMetric<PsnrValues> = {
  name: 'PSNR',
  start: ({ imageSize }) => imageMean('psnr', imageSize, (x, y) => psnr(x, y, 255)),
};
