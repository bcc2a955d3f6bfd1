/** Mean squared error of two arrays of one length. */
export function meanSquaredError(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) ** 2;
  return sum / x.length;
}

/** Peak signal-to-noise ratio in dB; `peak` is the largest value there can be, 255 or 1. Infinite for equal arrays. */
export function psnr(x: ArrayLike<number>, y: ArrayLike<number>, peak: number): number {
  return 10 * Math.log10(peak ** 2 / meanSquaredError(x, y));
}
