import * as tf from '@tensorflow/tfjs';

/**
 * (B, rows·p, columns·p, 3) → (B, rows·columns, 3·p·p): patches row-major, channels (colour, row, column), the order
 * of a PyTorch convolution's weight.
 */
export function toPatches(images: tf.Tensor4D, p: number): tf.Tensor3D {
  const [batch, height, width, colours] = images.shape;
  const [rows, columns] = [height / p, width / p];
  return images
    .reshape([batch, rows, p, columns, p, colours])
    .transpose([0, 1, 3, 5, 2, 4])
    .reshape([batch, rows * columns, colours * p * p]);
}

/** (B, rows·columns, p·p·3) with channel (row·p + column)·3 + colour → (B, rows·p, columns·p, 3). */
export function fromPatches(patches: tf.Tensor, rows: number, columns: number, p: number): tf.Tensor4D {
  return tf
    .reshape(patches, [-1, rows, columns, p, p, 3])
    .transpose([0, 1, 3, 2, 4, 5])
    .reshape([-1, rows * p, columns * p, 3]);
}
