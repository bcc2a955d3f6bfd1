import type * as tf from '@tensorflow/tfjs';
import { identity, normal, truncatedNormal } from '../../nn/initializers.js';
import { Parameters } from '../../nn/parameters.js';
import { type Stage, type TokenizerConfig, type TokenizerGeometry, tokenizerGeometry } from '../geometry.js';
import { type Decoded, decoder } from './decoder.js';
import { encoder } from './encoder.js';
import { quantizerOf } from './quantizers/index.js';
import type { Quantized, Quantizer } from './quantizers/quantizer.js';

/** Training options of a tokenizer; the defaults are the paper's. */
export interface TokenizerOptions {
  /** Weight of the quantizer's commitment term. */
  commitment?: number;
  /** Standard deviation of the initial linear, convolution and embedding weights. */
  init_std?: number;
  /**
   * Initial value of the last 1×1 convolution, over the three colours: normal like other weights, or the identity.
   * Near zero it is a bottleneck that takes thousands of steps to open.
   */
  colour_init?: 'normal' | 'identity';
  /** Keep only each block's input; the backward pass computes the block again. */
  checkpoint_activations?: boolean;
}

/** Parameters that stage 2 takes from stage 1 and does not train. */
export const FROZEN_IN_STAGE_2 = /^(encoder\.|latent_tokens$|quantize\.)/;

/** Encoder, quantizer and the decoder of one stage (AliTok, arXiv 2506.05289). */
export class Tokenizer {
  readonly parameters = new Parameters();
  readonly geometry: TokenizerGeometry;
  readonly quantizer: Quantizer;
  private readonly latentTokens;
  private readonly encoder;
  private readonly decoder;

  constructor(
    readonly config: TokenizerConfig,
    readonly stage: Stage,
    {
      commitment = 0.25,
      init_std = 0.02,
      colour_init = 'normal',
      checkpoint_activations: checkpointActivations = false,
    }: TokenizerOptions = {},
  ) {
    const geometry = tokenizerGeometry(config);
    this.geometry = geometry;
    const { width } = geometry.encoder;
    const scope = this.parameters.scope();
    const weights = truncatedNormal(init_std);
    const colours = colour_init === 'identity' ? identity : weights;
    this.latentTokens = scope.parameter('latent_tokens', [geometry.tokens, width], normal(width ** -0.5));
    this.encoder = encoder(scope.at('encoder'), geometry, { init: weights, checkpointActivations });
    this.decoder = decoder(scope.at('decoder'), geometry, stage, { weights, colours }, checkpointActivations);
    const options = { commitment, clustering: stage === 1, init: weights };
    this.quantizer = quantizerOf(config).create(scope.at('quantize'), config, options);
  }

  /** images (B, S, S, 3) in [0, 1] → z (B, T, token_size) */
  encode(images: tf.Tensor4D): tf.Tensor3D {
    return this.encoder(images, this.latentTokens.value);
  }

  /** images (B, S, S, 3) → codes (B, T) int32 */
  tokenize(images: tf.Tensor4D): tf.Tensor2D {
    const { indices } = this.quantizer.quantize(this.encode(images));
    return indices.reshape([images.shape[0], this.geometry.tokens]);
  }

  /** tokens (B, T, token_size) → image (B, S, S, 3) in [0, 1], and `aux` in stage 1 */
  decode(tokens: tf.Tensor3D): Decoded {
    return this.decoder(tokens);
  }

  /** codes (B, T) int32 → image (B, S, S, 3) in [0, 1] */
  detokenize(codes: tf.Tensor2D): tf.Tensor4D {
    return this.decode(this.quantizer.lookup(codes)).image;
  }

  /** Encodes, quantizes and decodes images (B, S, S, 3) in [0, 1]. */
  forward(images: tf.Tensor4D): Quantized & Decoded {
    const quantized = this.quantizer.quantize(this.encode(images));
    return { ...quantized, ...this.decode(quantized.tokens) };
  }
}
