import * as tf from '@tensorflow/tfjs';
import { stopGradient } from '../../engine/ops/index.js';
import type { TokenizerGeometry } from '../geometry.js';

/** Mean squared error of two tensors of one shape. */
export function mse(x: tf.Tensor, y: tf.Tensor): tf.Scalar {
  return tf.mean(tf.squaredDifference(x, y)) as tf.Scalar;
}

/** Mean squared error of each image: x and y (B, S, S, 3) → (B). */
export function msePerImage(x: tf.Tensor4D, y: tf.Tensor4D): tf.Tensor1D {
  return tf.mean(tf.squaredDifference(x, y), [1, 2, 3]);
}

/** Mean PSNR of images in dB, from their mean squared errors (B) in [0, 1]; without a gradient. */
export function meanPsnr(errors: tf.Tensor1D): tf.Scalar {
  return stopGradient(errors)
    .log()
    .mul(-10 / Math.LN10)
    .mean();
}

/**
 * Target of the auxiliary head: the first row of patches, behind the top-left patch if there are more than g `prefix` tokens.
 * (B, S, S, 3) → (B, p, k·p, 3).
 */
export function auxTarget(images: tf.Tensor4D, p: number, prefix: number): tf.Tensor4D {
  const firstRow = images.slice([0, 0, 0, 0], [-1, p, -1, -1]) as tf.Tensor4D;
  const extra = prefix * p - images.shape[2];
  return extra === 0 ? firstRow : tf.concat([firstRow.slice([0, 0, 0, 0], [-1, -1, extra, -1]), firstRow], 2);
}

/**
 * The image that the auxiliary loss's perceptual part sees (ICLR 2026 version): its first row of patches from the prefix's
 * view aux (B, p, k·p, 3), without the extra top-left patch, the others from image (B, S, S, 3) without a gradient, so that
 * only the prefix's branch learns. → (B, S, S, 3)
 */
export function stitch(aux: tf.Tensor4D, image: tf.Tensor4D): tf.Tensor4D {
  const [, p, width] = aux.shape;
  const [, side] = image.shape;
  const firstRow = aux.slice([0, 0, width - side, 0]) as tf.Tensor4D;
  if (p === side) return firstRow;
  return tf.concat([firstRow, stopGradient(image.slice([0, p, 0, 0]))], 1) as tf.Tensor4D;
}

/** Weight of the auxiliary loss: aux_weight·k/g², 10·17/256 in the paper. */
export function auxFactor({ prefix_tokens, grid }: TokenizerGeometry, auxWeight: number): number {
  return (auxWeight * prefix_tokens) / (grid * grid);
}

/** ½(mean relu(1 − D(x)) + mean relu(1 + D(x̂))) from the discriminator's logits. */
export function hingeLoss(real: tf.Tensor, fake: tf.Tensor): tf.Scalar {
  const onReal = tf.mean(tf.relu(tf.sub(1, real)));
  const onFake = tf.mean(tf.relu(tf.add(1, fake)));
  return onReal.add(onFake).mul(0.5) as tf.Scalar;
}

/** The tokenizer's loss against the discriminator: −mean D(x̂). */
export function adversarialLoss(fake: tf.Tensor): tf.Scalar {
  return tf.mean(fake).neg() as tf.Scalar;
}

/** Decay of the running means at each discriminator step. */
const LECAM_DECAY = 0.999;

/** LeCam regularisation (Tseng et al., 2021): keeps mean logits near the running mean of the other kind. */
export class LeCam {
  /** Running means of the logits. */
  state = { real: 0, fake: 0 };

  /** relu(D(x) − mean fake)² + relu(mean real − D(x̂))², from the batch's mean logits. */
  loss(real: tf.Tensor, fake: tf.Tensor): tf.Scalar {
    const onReal = tf.square(tf.relu(real.sub(this.state.fake)));
    const onFake = tf.square(tf.relu(tf.sub(this.state.real, fake)));
    return onReal.add(onFake) as tf.Scalar;
  }

  update(real: number, fake: number): void {
    const mix = (mean: number, value: number) => LECAM_DECAY * mean + (1 - LECAM_DECAY) * value;
    this.state = { real: mix(this.state.real, real), fake: mix(this.state.fake, fake) };
  }
}
