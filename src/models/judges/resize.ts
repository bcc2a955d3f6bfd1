import * as tf from '@tensorflow/tfjs';

/** Weights of an interpolation along one axis, (to, from): row i makes output position i of all input positions. */
type Weights = (from: number, to: number) => Float32Array;

/** TensorFlow 1's bilinear resizing, without the half-pixel shift of newer versions. It is part of FID's definition. */
const tf1: Weights = (from, to) => {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const position = Math.fround(i * Math.fround(from / to)); // rounded as TensorFlow rounds it
    const lower = Math.floor(position);
    weights[i * from + lower] += 1 - (position - lower);
    weights[i * from + Math.min(lower + 1, from - 1)] += position - lower;
  }
  return weights;
};

/**
 * PyTorch's bilinear resizing with antialiasing (align_corners=False): when an image is made smaller, the triangle filter
 * is as wide as the step between output pixels, so that every input pixel counts.
 */
const antialiased: Weights = (from, to) => {
  const weights = new Float32Array(to * from);
  const step = from / to;
  const support = Math.max(step, 1);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * step;
    const [first, last] = [Math.max(0, centre - support), Math.min(from, centre + support)].map((edge) =>
      Math.floor(edge + 0.5),
    );
    const row = weights.subarray(i * from, (i + 1) * from);
    let sum = 0;
    for (let j = first; j < last; j++) {
      row[j] = Math.max(0, 1 - Math.abs(j + 0.5 - centre) / support);
      sum += row[j];
    }
    for (let j = first; j < last; j++) row[j] /= sum;
  }
  return weights;
};

type Size = readonly [height: number, width: number];

/** x (B, H, W, C) → (B, height, width, C), both axes with the same weights: two products with small matrices. */
function resize(x: tf.Tensor4D, [height, width]: Size, weights: Weights): tf.Tensor4D {
  const alongLast = (lines: tf.Tensor4D, to: number): tf.Tensor4D => {
    const [a, b, c, from] = lines.shape;
    const matrix = tf.tensor2d(weights(from, to), [to, from]);
    const rows = lines.reshape([a * b * c, from]) as tf.Tensor2D;
    return tf.matMul(rows, matrix, false, true).reshape([a, b, c, to]);
  };
  const wide = alongLast(x.transpose([0, 3, 1, 2]), width); // (B, C, H, width)
  return alongLast(wide.transpose([0, 1, 3, 2]), height).transpose([0, 3, 2, 1]);
}

/** Bilinear resizing of x (B, H, W, C) to (B, height, width, C) as TensorFlow 1 does it. */
export function tf1Resize(x: tf.Tensor4D, size: Size): tf.Tensor4D {
  return resize(x, size, tf1);
}

/** Antialiased bilinear resizing of x (B, H, W, C) to (B, height, width, C) as PyTorch does it. */
export function antialiasedResize(x: tf.Tensor4D, size: Size): tf.Tensor4D {
  return resize(x, size, antialiased);
}
