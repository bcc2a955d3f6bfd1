import * as tf from '@tensorflow/tfjs';
import * as ops from '../../../engine/ops/index.js';
import { type Initializer, zeros } from '../../../nn/initializers.js';
import type { Scope } from '../../../nn/parameters.js';

/** Steepness of the clustering update's anchor weight, and the offset that keeps it below one. */
const ANCHOR_SCALE = 10;
const ANCHOR_OFFSET = 1e-3;

export interface QuantizerOptions {
  codebook_size: number;
  token_size: number;
  /** Compare and return unit vectors. */
  l2_normalize: boolean;
  /** Weight of the commitment term, 0.25 in the paper. */
  commitment: number;
  /** Whether the checkpoint holds `embed_prob`, the usage that the clustering update keeps. */
  clustering: boolean;
}

/** What one look-up gives; R = B·T rows. */
export interface Quantized {
  /** (B, T, token_size), with the straight-through gradient. */
  tokens: tf.Tensor3D;
  /** (R) int32 */
  indices: tf.Tensor1D;
  /** mean(commitment·(sg(q) − z)² + (q − sg(z))²) */
  loss: tf.Scalar;
  /** (R, token_size): the latents that were looked up, a constant for differentiation. */
  latents: tf.Tensor2D;
}

/** x / max(‖x‖, 1e-12) over the last dimension. The bound comes before the root, whose gradient at zero is NaN. */
function unit(x: tf.Tensor): tf.Tensor {
  return x.mul(x.square().sum(-1, true).maximum(1e-24).rsqrt());
}

/** Vector quantization by the nearest of N codebook entries (Euclidean), in float32. */
export class Quantizer {
  private readonly weight;
  private readonly usage;

  constructor(
    scope: Scope,
    private readonly options: QuantizerOptions,
    init: Initializer,
  ) {
    const { codebook_size: entries, token_size: width, clustering } = options;
    this.usage = clustering ? scope.buffer('embed_prob', [entries], zeros) : undefined;
    this.weight = scope.parameter('embedding.weight', [entries, width], init);
  }

  private get codebook(): tf.Tensor2D {
    const weight = this.weight.value;
    return (this.options.l2_normalize ? unit(weight) : weight) as tf.Tensor2D;
  }

  /** z (B, T, token_size) → nearest entries, their indices and the loss. */
  quantize(z: tf.Tensor3D): Quantized {
    const { token_size: width, l2_normalize, commitment } = this.options;
    const rows = (l2_normalize ? unit(z) : z).reshape([-1, width]) as tf.Tensor2D;
    const latents = ops.stopGradient(rows);
    const codebook = this.codebook;
    const indices = ops.nearestCode(latents, ops.stopGradient(codebook));
    const q = ops.embedding(codebook, indices) as tf.Tensor2D;
    const loss = tf.mean(
      ops.stopGradient(q).sub(rows).square().mul(commitment).add(q.sub(latents).square()),
    ) as tf.Scalar;
    const tokens = rows.add(ops.stopGradient(q.sub(rows))).reshape(z.shape) as tf.Tensor3D;
    return { tokens, indices, loss, latents };
  }

  /** indices (B, T) int32 → codebook entries (B, T, token_size). */
  lookup(indices: tf.Tensor2D): tf.Tensor3D {
    return ops.embedding(this.codebook, indices) as tf.Tensor3D;
  }

  /**
   * The clustering update: rarely used entries move to the batch feature nearest to them.
   * latents (R, token_size) and indices (R) are those of one forward pass, over all processes.
   */
  updateClusters(latents: tf.Tensor2D, indices: tf.Tensor1D, decay: number): void {
    const usage = this.usage;
    if (!usage) throw new Error('this quantizer keeps no usage; it cannot update its clusters');
    const entries = this.options.codebook_size;
    tf.tidy(() => {
      const share = tf.bincount(indices, [], entries).toFloat().div(indices.size);
      usage.value = usage.value.mul(decay).add(share.mul(1 - decay));
      const nearest = ops.nearestCode(this.codebook, latents); // (N): a feature for each entry
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
