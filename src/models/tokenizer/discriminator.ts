import * as tf from '@tensorflow/tfjs';
import { constant } from '../../nn/initializers.js';
import { conv2d, groupNorm, type Layer, toHWIO } from '../../nn/layers.js';
import { Parameters, type Scope } from '../../nn/parameters.js';

const LEAK = 0.1;
const GROUPS = 32;
/** Side of the map that features are pooled to before the logits. */
export const POOLED = 16;

/** The normalised outer product of (1, 3, 3, 1). */
const BLUR = (() => {
  const taps = [1, 3, 3, 1];
  return Float32Array.from(taps.flatMap((a) => taps.map((b) => (a * b) / 64)));
})();

const leakyRelu: Layer<tf.Tensor4D> = (x) => tf.leakyRelu(x, LEAK);

/** Depthwise blur at stride 2: (B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, C). */
function blur(scope: Scope): Layer<tf.Tensor4D> {
  const kernel = scope.buffer('kernel', [1, 1, 4, 4], constant(BLUR));
  return (x) => tf.depthwiseConv2d(x, tf.tile(toHWIO(kernel.value), [1, 1, x.shape[3], 1]), 2, 'same');
}

/** PyTorch's adaptive max pooling along one axis: output i is the maximum of ⌊i·n/size⌋ … ⌈(i+1)·n/size⌉ − 1. */
function adaptiveMaxPool(x: tf.Tensor4D, axis: number, size: number): tf.Tensor4D {
  const n = x.shape[axis];
  const windows = Array.from({ length: size }, (_, i) => [
    Math.floor((i * n) / size),
    Math.ceil(((i + 1) * n) / size),
  ]);
  const widest = Math.max(...windows.map(([start, end]) => end - start));
  const shifted = Array.from({ length: widest }, (_, offset) =>
    tf.gather(
      x,
      windows.map(([start, end]) => Math.min(start + offset, end - 1)),
      axis,
    ),
  );
  return shifted.reduce((a, b) => tf.maximum(a, b));
}

/** The convolutional discriminator of the adversarial phases (AliTok, arXiv 2506.05289). */
export class Discriminator {
  readonly parameters = new Parameters();
  private readonly layers: Layer<tf.Tensor4D>[];

  constructor({ hidden_channels, stages }: { hidden_channels: number; stages: number }) {
    const scope = this.parameters.scope();
    this.layers = [conv2d(scope.at('block_in.0'), 3, hidden_channels, 5), leakyRelu];
    let channels = hidden_channels;
    for (let i = 0; i < stages; i++) {
      const next = hidden_channels * 2 ** i;
      const block = scope.at('blocks').at(i);
      this.layers.push(conv2d(block.at(0), channels, next, 3), blur(block.at(1)));
      this.layers.push(groupNorm(block.at(2), next, GROUPS), leakyRelu);
      channels = next;
    }
    this.layers.push((x) => adaptiveMaxPool(adaptiveMaxPool(x, 1, POOLED), 2, POOLED));
    this.layers.push(conv2d(scope.at('to_logits.0'), channels, channels, 1), leakyRelu);
    this.layers.push(conv2d(scope.at('to_logits.2'), channels, 1, 5));
  }

  /** images (B, S, S, 3) in [0, 1] → logits (B, 16, 16, 1): one for each region, high for real images. */
  forward(images: tf.Tensor4D): tf.Tensor4D {
    return this.layers.reduce((x, layer) => layer(x), images);
  }
}
