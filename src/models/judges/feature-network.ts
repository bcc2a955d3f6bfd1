import * as tf from '@tensorflow/tfjs';
import { fanIn } from '../../nn/initializers.js';
import { conv2d, groupNorm, type Layer, linear } from '../../nn/layers.js';
import { Parameters } from '../../nn/parameters.js';

const GROUPS = 8;
/** sFID uses this many channels of a map, the first ones. */
export const SPATIAL_CHANNELS = 7;

/** The sizes that define a feature network. */
export interface FeatureNetworkConfig {
  image_size: number;
  classes: number;
  /** Channels of each stage; every stage but the first halves the image's side. */
  channels: number[];
}

/** Output of a feature network for B images. */
export interface Features {
  /** (B, channels of the last stage): the mean over the last map. */
  pool: tf.Tensor2D;
  /** (B, h·w·7): the first channels of the last map. */
  spatial: tf.Tensor2D;
  /** (B, classes); Inception's are without bias. */
  logits: tf.Tensor2D;
}

/**
 * A small convolutional classifier, for evaluating images that Inception does not suit, such as 32-pixel pictures:
 * trained on the data set itself, its features and logits are used in place of Inception's.
 */
export class FeatureNetwork {
  readonly parameters = new Parameters();
  private readonly stages: Layer<tf.Tensor4D>[];
  private readonly head: Layer;

  constructor(readonly config: FeatureNetworkConfig) {
    const { channels, classes } = config;
    const scope = this.parameters.scope();
    this.stages = channels.flatMap((outputs, i) => {
      const stage = scope.at('stages').at(i);
      const inputs = i === 0 ? 3 : channels[i - 1];
      const conv = conv2d(stage.at('conv'), inputs, outputs, 3, { stride: i === 0 ? 1 : 2 });
      return [conv, groupNorm(stage.at('norm'), outputs, GROUPS), (x) => tf.relu(x)];
    });
    const last = channels[channels.length - 1];
    this.head = linear(scope.at('head'), last, classes, { init: fanIn(last) });
  }

  /** images (B, S, S, 3) in [0, 1] */
  forward(images: tf.Tensor4D): Features {
    const x = this.stages.reduce((h, layer) => layer(h), images.mul(2).sub(1) as tf.Tensor4D);
    const pool = x.mean([1, 2]) as tf.Tensor2D;
    const spatial = x
      .slice([0, 0, 0, 0], [-1, -1, -1, SPATIAL_CHANNELS])
      .reshape([x.shape[0], -1]) as tf.Tensor2D;
    return { pool, spatial, logits: this.head(pool) as tf.Tensor2D };
  }
}
