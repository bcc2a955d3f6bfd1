import * as tf from '@tensorflow/tfjs';
import * as ops from '../../engine/ops/index.js';
import { constant, fanIn, ones, zeros } from '../../nn/initializers.js';
import { type Layer, sequence } from '../../nn/layers.js';
import { Parameters, type Scope } from '../../nn/parameters.js';
import { antialiasedResize } from './resize.js';

type Images = tf.Tensor4D;

/** Channels and blocks of the four stages of ConvNeXt-S. */
const STAGES = [
  { width: 96, blocks: 3 },
  { width: 192, blocks: 3 },
  { width: 384, blocks: 27 },
  { width: 768, blocks: 3 },
];
const LOGITS = 1000;
const EPSILON = 1e-6;
const SIDE = 224;
/** Mean and standard deviation of ImageNet's colours, for images in [0, 1]. */
const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];

/** LayerNorm over the channels of each pixel: (…, width) → the same. */
function norm<T extends tf.Tensor>(scope: Scope, width: number): Layer<T> {
  const weight = scope.parameter('weight', [width], ones);
  const bias = scope.parameter('bias', [width], zeros);
  return (x) => ops.layerNorm(x, weight.value, bias.value, { epsilon: EPSILON }) as T;
}

/** Convolution of size × size pixels at a stride of size: (B, H, W, inputs) → (B, H/size, W/size, outputs). */
function patches(scope: Scope, inputs: number, outputs: number, size: number): Layer<Images> {
  const weight = scope.parameter('weight', [outputs, inputs, size, size], fanIn(inputs * size * size));
  const bias = scope.parameter('bias', [outputs], zeros);
  return (x) => ops.frozenConv2d(x, weight.value, bias.value, { stride: size });
}

/** x + layer_scale · mlp(norm(depthwise 7×7 convolution of x)): (B, H, W, width) → the same. */
function block(scope: Scope, width: number): Layer<Images> {
  const at = (index: number) => scope.at('block').at(index);
  const spread = at(0).parameter('weight', [width, 1, 7, 7], fanIn(49));
  const spreadBias = at(0).parameter('bias', [width], zeros);
  const normalise = norm<Images>(at(2), width);
  const widen = at(3).parameter('weight', [4 * width, width], fanIn(width));
  const widenBias = at(3).parameter('bias', [4 * width], zeros);
  const narrow = at(5).parameter('weight', [width, 4 * width], fanIn(4 * width));
  const narrowBias = at(5).parameter('bias', [width], zeros);
  const scale = scope.parameter('layer_scale', [width, 1, 1], constant(new Float32Array(width).fill(1e-6)));
  return (x) => {
    const normalised = normalise(ops.frozenDepthwiseConv2d(x, spread.value, spreadBias.value));
    const wide = ops.gelu(ops.frozenLinear(normalised, widen.value, widenBias.value)) as Images;
    // Each channel's scale is folded into the row of the last layer that computes it.
    const rows = narrow.value.mul(scale.value.reshape([width, 1]));
    return x.add(ops.frozenLinear(wide, rows, narrowBias.value.mul(scale.value.reshape([width]))));
  };
}

/** ConvNeXt-S (Liu et al., arXiv 2201.03545), a classifier of ImageNet, under torchvision's names. */
export class ConvNeXtSmall {
  readonly parameters = new Parameters();
  private readonly stages: Layer<Images>;
  private readonly norm: Layer<tf.Tensor2D>;
  private readonly head;

  constructor() {
    const features = this.parameters.scope('features');
    const layers: Layer<Images>[] = [];
    STAGES.forEach(({ width, blocks }, i) => {
      const entry = features.at(2 * i);
      if (i === 0)
        layers.push(patches(entry.at(0), 3, width, 4), norm(entry.at(1), width)); // 224 → 56
      else {
        const { width: inputs } = STAGES[i - 1];
        layers.push(norm(entry.at(0), inputs), patches(entry.at(1), inputs, width, 2)); // → 28, 14, 7
      }
      for (let j = 0; j < blocks; j++) layers.push(block(features.at(2 * i + 1).at(j), width));
    });
    this.stages = sequence(...layers);
    const classifier = this.parameters.scope('classifier');
    const { width } = STAGES[STAGES.length - 1];
    this.norm = norm(classifier.at(0), width);
    this.head = {
      weight: classifier.at(2).parameter('weight', [LOGITS, width], fanIn(width)),
      bias: classifier.at(2).parameter('bias', [LOGITS], zeros),
    };
  }

  /** images (B, S, S, 3) in [0, 1] of any size → logits (B, 1000) */
  forward(images: Images): tf.Tensor2D {
    return tf.tidy(() => {
      const x = antialiasedResize(images, [SIDE, SIDE]).sub(MEAN).div(DEVIATION) as Images;
      const pooled = this.norm(this.stages(x).mean([1, 2]) as tf.Tensor2D);
      return ops.frozenLinear(pooled, this.head.weight.value, this.head.bias.value);
    });
  }
}
