/** Peak signal-to-noise ratio in dB. */
export function psnr(x: ArrayLike<number>, y: ArrayLike<number>, peak: number): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) ** 2;
  return 10 * Math.log10((peak * peak * x.length) / sum);
}
