import type * as tf from '@tensorflow/tfjs';

/** A distance between images and their reconstructions, both (B, S, S, 3) in [0, 1]: their mean over the batch. */
export type PerceptualTerm = (images: tf.Tensor4D, reconstructions: tf.Tensor4D) => tf.Scalar;

/** The perceptual terms of the tokenizer's loss that have networks to compute them. */
export interface PerceptualTerms {
  /** LPIPS, weight w_lpips. */
  lpips?: PerceptualTerm;
  /** Squared difference of ConvNeXt-S logits, weight w_perc. */
  classifier?: PerceptualTerm;
}
