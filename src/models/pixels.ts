import * as tf from '@tensorflow/tfjs';

/** uint8 pixels (B, S, S, 3) → float tensor (B, S, S, 3) in [0, 1]. */
export function toTensor(pixels: Uint8Array, size: number): tf.Tensor4D {
  const values = new Float32Array(pixels.length);
  for (let i = 0; i < pixels.length; i++) values[i] = pixels[i] / 255;
  return tf.tensor4d(values, [pixels.length / (size * size * 3), size, size, 3]);
}

/** Images (B, S, S, 3) in [0, 1] → uint8 pixels: clamped, times 255, truncated as the published code does. */
export function toPixels(images: tf.Tensor4D): Uint8Array {
  const values = images.dataSync();
  const pixels = new Uint8Array(values.length);
  for (let i = 0; i < pixels.length; i++) pixels[i] = Math.min(Math.max(values[i], 0), 1) * 255;
  return pixels;
}
