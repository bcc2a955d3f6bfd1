import type * as tf from '@tensorflow/tfjs';
import { embedding } from '../../../engine/ops/index.js';
import { inFloat32 } from '../../../engine/ops/precision.js';
import { fanIn, normal } from '../../../nn/initializers.js';
import { linear } from '../../../nn/layers.js';
import type { Scope } from '../../../nn/parameters.js';
import { product } from '../../flops.js';
import type { TokenizerConfig } from '../../geometry.js';
import type { Quantized, Quantizer, QuantizerKind, QuantizerOptions } from './quantizer.js';
import { quantizeByNearest } from './vector.js';

/**
 * SimVQ (Zhu et al., arXiv 2411.02038): vector quantization whose codebook is a frozen random matrix C (N, c) under one
 * learned linear layer, C·Wᵀ + b. A step that uses few entries moves all of them, so that none is left behind. The layer
 * has a bias, and parameters have their names, as in the authors' code.
 */
class SimVectorQuantizer implements Quantizer {
  readonly identity = 'simvq\n';
  private readonly frozen;
  private readonly projection;

  constructor(
    scope: Scope,
    { codebook_size: entries, token_size: width }: TokenizerConfig,
    private readonly options: QuantizerOptions,
  ) {
    this.frozen = scope.buffer('embedding.weight', [entries, width], normal(width ** -0.5));
    this.projection = linear(scope.at('embedding_proj'), width, width, { init: fanIn(width) });
  }

  /** In float32 in every precision: codes must not depend on it. */
  private get codebook(): tf.Tensor2D {
    return inFloat32(() => this.projection(this.frozen.value)) as tf.Tensor2D;
  }

  quantize(z: tf.Tensor3D): Quantized {
    return quantizeByNearest(z, this.codebook, this.options.commitment);
  }

  lookup(indices: tf.Tensor2D): tf.Tensor3D {
    return embedding(this.codebook, indices) as tf.Tensor3D;
  }
}

export const simvq: QuantizerKind = {
  title: 'vector quantization with one linear layer over a frozen codebook',
  settings: [],
  clusters: false,
  flops: ({ token_size, codebook_size }, tokens) =>
    product(codebook_size, token_size, token_size) + product(tokens, token_size, codebook_size),
  create: (scope, config, options) => new SimVectorQuantizer(scope, config, options),
};
