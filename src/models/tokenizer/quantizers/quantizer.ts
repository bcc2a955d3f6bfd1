import type * as tf from '@tensorflow/tfjs';
import type { Initializer } from '../../../nn/initializers.js';
import type { Scope } from '../../../nn/parameters.js';
import type { TokenizerConfig } from '../../geometry.js';

/** The result of quantizing a batch; R = B·T rows. */
export interface Quantized {
  /** (B, T, token_size), with the straight-through gradient: the gradient by z is that by the tokens. */
  tokens: tf.Tensor3D;
  /** (R) int32: the code of each row, from 0 to codebook_size − 1. */
  indices: tf.Tensor1D;
  /** The quantizer's own term of the training loss; absent where it has none. */
  loss?: tf.Scalar;
  /** (R, token_size): the latents that were quantized, a constant for differentiation. */
  latents: tf.Tensor2D;
}

/** Turns latents into codes, and codes into the tokens that the decoder reads. */
export interface Quantizer {
  /**
   * Tells its codes from those of other quantizers with the same parameters: its kind and the settings that no parameter
   * shows. Part of a tokenizer's fingerprint; empty for the published quantizer.
   */
  readonly identity: string;
  /** Latents z (B, T, token_size) → tokens, codes and loss. */
  quantize(z: tf.Tensor3D): Quantized;
  /** Codes (B, T) int32 → tokens (B, T, token_size). */
  lookup(indices: tf.Tensor2D): tf.Tensor3D;
  /**
   * The clustering update of stage 1, for kinds that have one (`QuantizerKind.clusters`): latents (R, token_size) and
   * indices (R) are those of one step, from all processes; `decay` is that of the codebook usage.
   */
  updateClusters?(latents: tf.Tensor2D, indices: tf.Tensor1D, decay: number): void;
}

/** What a quantizer is built from besides the tokenizer's config. */
export interface QuantizerOptions {
  /** Weight of the commitment term, for kinds that have one. */
  commitment: number;
  /** Whether the clustering update may be used, for kinds that have one. */
  clustering: boolean;
  /** Initial values of trained weights, for kinds that start as all other layers do. */
  init: Initializer;
}

/** A kind of quantizer, as it stands in the registry (index.ts). */
export interface QuantizerKind {
  /** Its name in words. */
  title: string;
  /** The keys of the config section `tokenizer` that only this kind reads. Others leave them null or false. */
  settings: readonly (keyof TokenizerConfig)[];
  /** Whether it has a clustering update; the default of `tokenizer_training.stage1.clustering`. */
  clusters: boolean;
  /** What is wrong with a tokenizer's config for this kind, and the key of the section that it is about. */
  check?(config: TokenizerConfig): { key: keyof TokenizerConfig; message: string } | undefined;
  /** Multiplications and additions that quantizing `tokens` latents takes. */
  flops(config: TokenizerConfig, tokens: number): number;
  /** Declares the parameters under `scope`, which is `quantize` in a checkpoint. */
  create(scope: Scope, config: TokenizerConfig, options: QuantizerOptions): Quantizer;
}
