import * as tf from '@tensorflow/tfjs';
import { ones } from '../../nn/initializers.js';
import { Parameters } from '../../nn/parameters.js';
import { VGG16, VGG16_CHANNELS } from './vgg16.js';

/** Mean and standard deviation of ImageNet's colours, for images in [−1, 1]. */
const SHIFT = [-0.03, -0.088, -0.188];
const SCALE = [0.458, 0.448, 0.45];
const EPSILON = 1e-10;
/** The smallest side that an image can have: VGG-16 halves it four times. */
export const LPIPS_SMALLEST = 16;

/** Learned perceptual distance of images (Zhang et al., arXiv 1801.03924) on VGG-16, version 0.1. */
export class LPIPS {
  readonly vgg = new VGG16();
  /** Weights of the activations' channels, under LPIPS's names. */
  readonly lins = new Parameters();
  private readonly weights = VGG16_CHANNELS.map((channels, i) =>
    this.lins.scope(`lin${i}`).parameter('model.1.weight', [1, channels, 1, 1], ones),
  );

  /** images (B, S, S, 3) in [0, 1] → activations at five depths, (B, H, W, C), each pixel's vector of length 1. */
  activations(images: tf.Tensor4D): tf.Tensor4D[] {
    return tf.tidy(() => {
      const normalised = images.mul(2).sub(1).sub(SHIFT).div(SCALE) as tf.Tensor4D;
      return this.vgg.forward(normalised).map((map) => {
        const length = map.square().sum(-1, true).sqrt();
        return map.div(length.add(EPSILON)) as tf.Tensor4D;
      });
    });
  }

  /** Distances (B) between two batches of images, given the `activations` of both. */
  compare(a: readonly tf.Tensor4D[], b: readonly tf.Tensor4D[]): tf.Tensor1D {
    return tf.tidy(() => {
      const distances = a.map((map, i) => {
        const weighted = tf.squaredDifference(map, b[i]).mul(this.weights[i].value.reshape([-1]));
        return weighted.sum(-1).mean([1, 2]) as tf.Tensor1D;
      });
      return tf.addN(distances);
    });
  }

  /** Distances (B) between images and their reconstructions, both (B, S, S, 3) in [0, 1]. */
  distances(images: tf.Tensor4D, reconstructions: tf.Tensor4D): tf.Tensor1D {
    return tf.tidy(() => this.compare(this.activations(images), this.activations(reconstructions)));
  }

  dispose(): void {
    this.vgg.parameters.dispose();
    this.lins.dispose();
  }
}
