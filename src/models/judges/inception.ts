import * as tf from '@tensorflow/tfjs';
import * as ops from '../../engine/ops/index.js';
import { fanIn, ones, zeros } from '../../nn/initializers.js';
import { type Layer, sequence } from '../../nn/layers.js';
import { type Parameter, Parameters, type Scope } from '../../nn/parameters.js';
import { type Features, SPATIAL_CHANNELS } from './feature-network.js';
import { tf1Resize } from './resize.js';

type Images = tf.Tensor4D;

const SIDE = 299;
const EPSILON = 1e-3;
/** 1000 classes of ImageNet, and outputs that were never used. */
const LOGITS = 1008;

/** Convolution without bias, batch normalisation with its final statistics, ReLU: (B, H, W, inputs) → (…, outputs). */
function convolution(
  scope: Scope,
  inputs: number,
  outputs: number,
  kernel: number | [height: number, width: number],
  { stride = 1, same = true }: { stride?: number; same?: boolean } = {},
): Layer<Images> {
  const [height, width] = Array.isArray(kernel) ? kernel : [kernel, kernel];
  const init = fanIn(inputs * height * width);
  const weight = scope.at('conv').parameter('weight', [outputs, inputs, height, width], init);
  const bn = scope.at('bn');
  const gamma = bn.parameter('weight', [outputs], ones);
  const beta = bn.parameter('bias', [outputs], zeros);
  const mean = bn.buffer('running_mean', [outputs], zeros);
  const variance = bn.buffer('running_var', [outputs], ones);
  return (x) => {
    // The normalisation is a scale and an offset of each channel, folded into the convolution's weight and bias.
    const scale = gamma.value.mul(variance.value.add(EPSILON).rsqrt());
    const folded = weight.value.mul(scale.reshape([outputs, 1, 1, 1]));
    return ops.frozenConv2d(x, folded, beta.value.sub(mean.value.mul(scale)), { stride, same, relu: true });
  };
}

/** Concatenates the branches' results along the channels. */
const branches =
  (...parts: Layer<Images>[]): Layer<Images> =>
  (x) =>
    beside(parts.map((part) => part(x)));
const beside = (parts: Images[]): Images => tf.concat(parts, 3);

/** Mean of 3×3 pixels; those outside the image do not count. */
const averagePool: Layer<Images> = (x) => tf.avgPool(x, 3, 1, 'same');
const maxPool: Layer<Images> = (x) => tf.maxPool(x, 3, 1, 'same');
const halve: Layer<Images> = (x) => tf.maxPool(x, 3, 2, 'valid');
const HALVING = { stride: 2, same: false };

/** Mixed_5b to 5d: (B, 35, 35, inputs) → (B, 35, 35, 224 + pooled) */
function blockA(scope: Scope, inputs: number, pooled: number): Layer<Images> {
  const at = (name: string) => scope.at(name);
  return branches(
    convolution(at('branch1x1'), inputs, 64, 1),
    sequence(convolution(at('branch5x5_1'), inputs, 48, 1), convolution(at('branch5x5_2'), 48, 64, 5)),
    sequence(
      convolution(at('branch3x3dbl_1'), inputs, 64, 1),
      convolution(at('branch3x3dbl_2'), 64, 96, 3),
      convolution(at('branch3x3dbl_3'), 96, 96, 3),
    ),
    sequence(averagePool, convolution(at('branch_pool'), inputs, pooled, 1)),
  );
}

/** Mixed_6a: (B, 35, 35, 288) → (B, 17, 17, 768) */
function blockB(scope: Scope, inputs: number): Layer<Images> {
  const at = (name: string) => scope.at(name);
  return branches(
    convolution(at('branch3x3'), inputs, 384, 3, HALVING),
    sequence(
      convolution(at('branch3x3dbl_1'), inputs, 64, 1),
      convolution(at('branch3x3dbl_2'), 64, 96, 3),
      convolution(at('branch3x3dbl_3'), 96, 96, 3, HALVING),
    ),
    halve,
  );
}

/** Branches of Mixed_6b to 6e: (B, 17, 17, 768) → (B, 17, 17, 192) each; `inner` channels between factors of 7×7. */
function blockC(scope: Scope, inner: number): Layer<Images>[] {
  const at = (name: string) => scope.at(name);
  return [
    convolution(at('branch1x1'), 768, 192, 1),
    sequence(
      convolution(at('branch7x7_1'), 768, inner, 1),
      convolution(at('branch7x7_2'), inner, inner, [1, 7]),
      convolution(at('branch7x7_3'), inner, 192, [7, 1]),
    ),
    sequence(
      convolution(at('branch7x7dbl_1'), 768, inner, 1),
      convolution(at('branch7x7dbl_2'), inner, inner, [7, 1]),
      convolution(at('branch7x7dbl_3'), inner, inner, [1, 7]),
      convolution(at('branch7x7dbl_4'), inner, inner, [7, 1]),
      convolution(at('branch7x7dbl_5'), inner, 192, [1, 7]),
    ),
    sequence(averagePool, convolution(at('branch_pool'), 768, 192, 1)),
  ];
}

/** Mixed_7a: (B, 17, 17, 768) → (B, 8, 8, 1280) */
function blockD(scope: Scope): Layer<Images> {
  const at = (name: string) => scope.at(name);
  return branches(
    sequence(
      convolution(at('branch3x3_1'), 768, 192, 1),
      convolution(at('branch3x3_2'), 192, 320, 3, HALVING),
    ),
    sequence(
      convolution(at('branch7x7x3_1'), 768, 192, 1),
      convolution(at('branch7x7x3_2'), 192, 192, [1, 7]),
      convolution(at('branch7x7x3_3'), 192, 192, [7, 1]),
      convolution(at('branch7x7x3_4'), 192, 192, 3, HALVING),
    ),
    halve,
  );
}

/** Mixed_7b and 7c: (B, 8, 8, inputs) → (B, 8, 8, 2048) */
function blockE(scope: Scope, inputs: number, pool: Layer<Images>): Layer<Images> {
  const at = (name: string) => scope.at(name);
  const split = (name: string) =>
    branches(convolution(at(`${name}a`), 384, 384, [1, 3]), convolution(at(`${name}b`), 384, 384, [3, 1]));
  return branches(
    convolution(at('branch1x1'), inputs, 320, 1),
    sequence(convolution(at('branch3x3_1'), inputs, 384, 1), split('branch3x3_2')),
    sequence(
      convolution(at('branch3x3dbl_1'), inputs, 448, 1),
      convolution(at('branch3x3dbl_2'), 448, 384, 3),
      split('branch3x3dbl_3'),
    ),
    sequence(pool, convolution(at('branch_pool'), inputs, 192, 1)),
  );
}

/**
 * Inception v3 (Szegedy et al., arXiv 1512.00567) of TensorFlow's graph of December 2015, whose features FID compares
 * (Heusel et al., arXiv 1706.08500); parameters under pytorch-fid's names. Unlike torchvision's it has 1008 logits, its
 * average pooling ignores pixels outside the image, and Mixed_7c uses max pooling.
 */
export class Inception {
  readonly parameters = new Parameters();
  private readonly toMixed6c: Layer<Images>;
  private readonly mixed6d: Layer<Images>[];
  private readonly toMixed7c: Layer<Images>;
  private readonly fc: Parameter;

  constructor() {
    const scope = this.parameters.scope();
    const at = (name: string) => scope.at(name);
    this.toMixed6c = sequence(
      convolution(at('Conv2d_1a_3x3'), 3, 32, 3, HALVING), // 299 → 149
      convolution(at('Conv2d_2a_3x3'), 32, 32, 3, { same: false }), // 147
      convolution(at('Conv2d_2b_3x3'), 32, 64, 3),
      halve, // 73
      convolution(at('Conv2d_3b_1x1'), 64, 80, 1),
      convolution(at('Conv2d_4a_3x3'), 80, 192, 3, { same: false }), // 71
      halve, // 35
      blockA(at('Mixed_5b'), 192, 32),
      blockA(at('Mixed_5c'), 256, 64),
      blockA(at('Mixed_5d'), 288, 64),
      blockB(at('Mixed_6a'), 288), // 17
      branches(...blockC(at('Mixed_6b'), 128)),
      branches(...blockC(at('Mixed_6c'), 160)),
    );
    this.mixed6d = blockC(at('Mixed_6d'), 160);
    this.toMixed7c = sequence(
      branches(...blockC(at('Mixed_6e'), 192)),
      blockD(at('Mixed_7a')), // 8
      blockE(at('Mixed_7b'), 1280, averagePool),
      blockE(at('Mixed_7c'), 2048, maxPool),
    );
    this.fc = at('fc').parameter('weight', [LOGITS, 2048], fanIn(2048));
    at('fc').parameter('bias', [LOGITS], zeros); // part of the file, but not of any metric
  }

  /**
   * images (B, 299, 299, 3) in [−1, 1] → pool (B, 2048): pool_3; spatial (B, 17·17·7), after ReLU: the first channels
   * of mixed_6/conv; logits (B, 1008) *without* their bias, as the inception score is defined.
   */
  forward(images: Images): Features {
    const mixed6c = this.toMixed6c(images);
    const parts = this.mixed6d.map((branch) => branch(mixed6c));
    const spatial = parts[0]
      .slice([0, 0, 0, 0], [-1, -1, -1, SPATIAL_CHANNELS])
      .reshape([images.shape[0], -1]) as tf.Tensor2D;
    const pool = this.toMixed7c(beside(parts)).mean([1, 2]) as tf.Tensor2D;
    return { pool, spatial, logits: ops.linear(pool, this.fc.value) as tf.Tensor2D };
  }

  /** Features of images (B, S, S, 3) in [0, 255] of any size: resized as TensorFlow 1 does, (x − 128)/128. */
  features(images: Images): Features {
    return this.forward(tf1Resize(images, [SIDE, SIDE]).sub(128).div(128) as Images);
  }
}
