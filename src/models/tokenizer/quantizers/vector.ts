import * as tf from '@tensorflow/tfjs';
import * as ops from '../../../engine/ops/index.js';
import { zeros } from '../../../nn/initializers.js';
import type { Scope } from '../../../nn/parameters.js';
import { product } from '../../flops.js';
import type { TokenizerConfig } from '../../geometry.js';
import type { Quantized, Quantizer, QuantizerKind, QuantizerOptions } from './quantizer.js';

/** Steepness of the clustering update's anchor weight, and the offset that keeps it below one. */
const ANCHOR_SCALE = 10;
const ANCHOR_OFFSET = 1e-3;

/** x / max(‖x‖, 1e-12) over the last dimension. The bound comes before the root, whose gradient at zero is NaN. */
function unit(x: tf.Tensor): tf.Tensor {
  return x.mul(x.square().sum(-1, true).maximum(1e-24).rsqrt());
}

/**
 * Quantizes z (B, T, c) by the nearest (Euclidean, in float32) of the rows of codebook (N, c), both of which get a
 * gradient. loss = mean(commitment·(sg(q) − z)² + (q − sg(z))²), where sg stops the gradient.
 */
export function quantizeByNearest(z: tf.Tensor3D, codebook: tf.Tensor2D, commitment: number) {
  const rows = z.reshape([-1, codebook.shape[1]]) as tf.Tensor2D;
  const latents = ops.stopGradient(rows);
  const indices = ops.nearestCode(latents, ops.stopGradient(codebook));
  const q = ops.embedding(codebook, indices) as tf.Tensor2D;
  const loss = tf.mean(
    ops.stopGradient(q).sub(rows).square().mul(commitment).add(q.sub(latents).square()),
  ) as tf.Scalar;
  const tokens = rows.add(ops.stopGradient(q.sub(rows))).reshape(z.shape) as tf.Tensor3D;
  return { tokens, indices, loss, latents };
}

/** Vector quantization by the nearest of N learned codebook entries (AliTok, arXiv 2506.05289). */
class VectorQuantizer implements Quantizer {
  readonly identity = '';
  private readonly usage;
  private readonly weight;

  constructor(
    scope: Scope,
    private readonly config: TokenizerConfig,
    private readonly options: QuantizerOptions,
  ) {
    const { codebook_size: entries, token_size: width } = config;
    // The codebook usage that the clustering update keeps.
    this.usage = options.clustering ? scope.buffer('embed_prob', [entries], zeros) : undefined;
    this.weight = scope.parameter('embedding.weight', [entries, width], options.init);
  }

  private get codebook(): tf.Tensor2D {
    const weight = this.weight.value;
    return (this.config.l2_normalize ? unit(weight) : weight) as tf.Tensor2D;
  }

  quantize(z: tf.Tensor3D): Quantized {
    const latents = (this.config.l2_normalize ? unit(z) : z) as tf.Tensor3D;
    return quantizeByNearest(latents, this.codebook, this.options.commitment);
  }

  lookup(indices: tf.Tensor2D): tf.Tensor3D {
    return ops.embedding(this.codebook, indices) as tf.Tensor3D;
  }

  /** Entries that are rarely used move to the latent of the batch that is nearest to them. */
  updateClusters(latents: tf.Tensor2D, indices: tf.Tensor1D, decay: number): void {
    const usage = this.usage;
    if (!usage) throw new Error('this quantizer keeps no codebook usage, which its clustering update needs');
    const entries = this.config.codebook_size;
    tf.tidy(() => {
      const share = tf.bincount(indices, [], entries).toFloat().div(indices.size);
      usage.value = usage.value.mul(decay).add(share.mul(1 - decay));
      const nearest = ops.nearestCode(this.codebook, latents); // (N): a latent for each entry
      const anchors = ops.embedding(latents, nearest);
      const alpha = usage.value
        .mul((-entries * ANCHOR_SCALE) / (1 - decay))
        .sub(ANCHOR_OFFSET)
        .exp()
        .expandDims(-1); // (N, 1)
      const weight = this.weight.value;
      this.weight.value = weight.mul(alpha.neg().add(1)).add(anchors.mul(alpha));
    });
  }
}

export const vector: QuantizerKind = {
  title: 'vector quantization',
  settings: ['l2_normalize'],
  clusters: true,
  flops: ({ token_size, codebook_size }, tokens) => product(tokens, token_size, codebook_size),
  create: (scope, config, options) => new VectorQuantizer(scope, config, options),
};
