import * as tf from '@tensorflow/tfjs';

/** uint8 pixels (B, S, S, 3) → float tensor (B, S, S, 3) in [0, 1]. */
export function toTensor(pixels: Uint8Array, size: number): tf.Tensor4D {
  const values = Float32Array.from(pixels, (value) => value / 255);
  return tf.tensor4d(values, [pixels.length / (size * size * 3), size, size, 3]);
}

/** Images (B, S, S, 3) in [0, 1] → uint8 pixels: clamped, times 255, truncated as the published code does. */
export function toPixels(images: tf.Tensor4D): Uint8Array {
  return Uint8Array.from(images.dataSync(), (value) => Math.min(Math.max(value, 0), 1) * 255);
}
