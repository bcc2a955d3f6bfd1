import * as tf from '@tensorflow/tfjs';
import { inFloat32 } from '../../engine/ops/precision.js';
import { withGradient } from '../../nn/gradients.js';
import type { ConvNeXtSmall } from './convnext.js';
import type { LPIPS } from './lpips.js';

/** A distance between images and their reconstructions, both (B, S, S, 3) in [0, 1]: their mean over the batch. */
export type PerceptualTerm = (images: tf.Tensor4D, reconstructions: tf.Tensor4D) => tf.Scalar;

/** The perceptual terms of the tokenizer's loss whose networks are loaded. */
export interface PerceptualTerms {
  /** LPIPS, weight w_lpips. */
  lpips?: PerceptualTerm;
  /** Squared difference of ConvNeXt-S logits, weight w_perc. */
  classifier?: PerceptualTerm;
}

/**
 * The distance between a network's outputs for images and for their reconstructions, in float32 products. The gradient by
 * the reconstructions is computed along with it, so that the network's activations are freed before the tokenizer's
 * backward pass begins; the images have no gradient.
 */
function term<T extends tf.TensorContainer>(
  describe: (images: tf.Tensor4D) => T,
  distance: (target: T, reconstructions: tf.Tensor4D) => tf.Scalar,
): PerceptualTerm {
  return (images, reconstructions) =>
    withGradient(reconstructions, (x) =>
      inFloat32(() => {
        const target = tf.tidy(() => describe(images));
        return tf.valueAndGrad((y: tf.Tensor4D) => distance(target, y))(x);
      }),
    );
}

/** mean LPIPS */
export function lpipsTerm(lpips: LPIPS): PerceptualTerm {
  return term(
    (images) => lpips.activations(images),
    (target, x) => lpips.compare(target, lpips.activations(x)).mean(),
  );
}

/** mean over batch and logits of (ConvNeXt-S(x) − ConvNeXt-S(x̂))² */
export function classifierTerm(network: ConvNeXtSmall): PerceptualTerm {
  return term(
    (images) => network.forward(images),
    (target, x) => tf.squaredDifference(target, network.forward(x)).mean(),
  );
}
