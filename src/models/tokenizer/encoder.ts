import * as tf from '@tensorflow/tfjs';
import { type Initializer, normal } from '../../nn/initializers.js';
import { layerNorm, linear } from '../../nn/layers.js';
import type { Scope } from '../../nn/parameters.js';
import type { TokenizerGeometry } from '../geometry.js';
import { toPatches } from './patches.js';
import { transformer } from './transformer.js';

/**
 * The bidirectional encoder: a ViT over image patches and T latent tokens, of whose outputs the latents are kept.
 * images (B, S, S, 3) in [0, 1] and latentTokens (T, width) → z (B, T, token_size).
 */
export function encoder(
  scope: Scope,
  geometry: TokenizerGeometry,
  { init, checkpointActivations }: { init: Initializer; checkpointActivations: boolean },
) {
  const { encoder: size, patch_size: p, grid, tokens, token_size } = geometry;
  const { width } = size;
  const position = normal(width ** -0.5);
  const patchEmbed = linear(scope.at('patch_embed'), 3 * p * p, width, {
    init,
    shape: [width, 3, p, p],
  });
  const positions = scope.parameter('positional_embedding', [grid * grid, width], position);
  const latentPositions = scope.parameter('latent_token_positional_embedding', [tokens, width], position);
  const lnPre = layerNorm(scope.at('ln_pre'), width);
  const blocks = transformer(scope.at('transformer'), size, { causal: false, init, checkpointActivations });
  const lnPost = layerNorm(scope.at('ln_post'), width, { rounds: true });
  const convOut = linear(scope.at('conv_out'), width, token_size, {
    init,
    shape: [token_size, width, 1, 1],
  });

  return (images: tf.Tensor4D, latentTokens: tf.Tensor): tf.Tensor3D => {
    const batch = images.shape[0];
    const patches = patchEmbed(toPatches(images, p)).add(positions.value); // (B, g², width)
    const latents = tf.tile(latentTokens.add(latentPositions.value).expandDims(0), [batch, 1, 1]); // (B, T, width)
    const x = blocks(lnPre(tf.concat([patches, latents], 1))); // (B, g² + T, width)
    return convOut(lnPost(x.slice([0, grid * grid, 0]))) as tf.Tensor3D; // (B, T, token_size)
  };
}
