import * as tf from '@tensorflow/tfjs';
import * as ops from '../../engine/ops/index.js';
import { fanIn, zeros } from '../../nn/initializers.js';
import { type Layer, sequence } from '../../nn/layers.js';
import { Parameters, type Scope } from '../../nn/parameters.js';

/** Channels of the 3×3 convolutions of each part; the image's side is halved between parts. */
const PARTS = [
  [64, 64],
  [128, 128],
  [256, 256, 256],
  [512, 512, 512],
  [512, 512, 512],
];

/** Channels of each part's output. */
export const VGG16_CHANNELS = PARTS.map((channels) => channels[channels.length - 1]);

/** 3×3 convolution and ReLU: (B, H, W, inputs) → (B, H, W, outputs) */
function convolution(scope: Scope, inputs: number, outputs: number): Layer<tf.Tensor4D> {
  const weight = scope.parameter('weight', [outputs, inputs, 3, 3], fanIn(inputs * 9));
  const bias = scope.parameter('bias', [outputs], zeros);
  return (x) => ops.frozenConv2d(x, weight.value, bias.value, { same: true, relu: true });
}

/** The convolutions of VGG-16 (Simonyan and Zisserman, arXiv 1409.1556), under torchvision's names. */
export class VGG16 {
  readonly parameters = new Parameters();
  private readonly parts: Layer<tf.Tensor4D>[] = [];

  constructor() {
    const features = this.parameters.scope('features');
    let [inputs, index] = [3, 0];
    for (const channels of PARTS) {
      const layers: Layer<tf.Tensor4D>[] = [];
      if (inputs > 3) {
        layers.push((x) => tf.maxPool(x, 2, 2, 'valid'));
        index += 1;
      }
      for (const outputs of channels) {
        layers.push(convolution(features.at(index), inputs, outputs));
        inputs = outputs;
        index += 2; // the ReLU has a number too
      }
      this.parts.push(sequence(...layers));
    }
  }

  /** images (B, S, S, 3), normalised → after relu1_2, 2_2, 3_3, 4_3, 5_3: (B, S, S, 64) … (B, S/16, S/16, 512) */
  forward(images: tf.Tensor4D): tf.Tensor4D[] {
    let x = images;
    return this.parts.map((part) => {
      x = part(x);
      return x;
    });
  }
}
