import * as tf from '@tensorflow/tfjs';
import { type Initializer, normal } from '../../nn/initializers.js';
import { layerNorm, linear } from '../../nn/layers.js';
import type { Scope } from '../../nn/parameters.js';
import type { Stage, TokenizerGeometry } from '../geometry.js';
import { fromPatches } from './patches.js';
import { transformer } from './transformer.js';

/** An image (B, S, S, 3) in [0, 1] and, in stage 1, the prefix's view of its first row (B, p, k·p, 3), see `auxTarget`. */
export interface Decoded {
  image: tf.Tensor4D;
  aux?: tf.Tensor4D;
}

/**
 * Stage 1: the causal decoder that aligns the tokens, with one learned token in front and the auxiliary head of the
 * prefix. Stage 2: the bidirectional decoder, with `class_tokens` learned tokens in front and no auxiliary head.
 * tokens (B, T, token_size) → image.
 */
export function decoder(
  scope: Scope,
  geometry: TokenizerGeometry,
  stage: Stage,
  init: { weights: Initializer; colours: Initializer },
  checkpointActivations: boolean,
) {
  const { decoder: size, patch_size: p, grid, prefix_tokens, tokens, token_size } = geometry;
  const { width } = size;
  const front = stage === 1 ? 1 : size.class_tokens;
  const position = normal(width ** -0.5);
  const pixels = p * p * 3;
  const embed = linear(scope.at('decoder_embed'), token_size, width, { init: init.weights });
  const classEmbedding = scope.parameter('class_embedding', [front, width], position);
  const positions = scope.parameter('latent_token_positional_embedding', [tokens + front, width], position);
  const lnPre = layerNorm(scope.at('ln_pre'), width);
  const blocks = transformer(scope.at('transformer'), size, {
    causal: stage === 1,
    init: init.weights,
    checkpointActivations,
  });
  const lnPost = layerNorm(scope.at('ln_post'), width, { rounds: true });

  /** One 1×1 convolution to a patch of pixels, another over their colours, sigmoid. */
  function head(suffix: string) {
    const ffn = linear(scope.at(`ffn${suffix}.0`), width, pixels, {
      init: init.weights,
      shape: [pixels, width, 1, 1],
    });
    const convOut = linear(scope.at(`conv_out${suffix}`), 3, 3, { init: init.colours, shape: [3, 3, 1, 1] });
    return (x: tf.Tensor, rows: number, columns: number) =>
      convOut(fromPatches(ffn(x), rows, columns, p)).sigmoid() as tf.Tensor4D;
  }
  const imageHead = head('');
  const auxHead = stage === 1 ? head('_aux') : undefined;

  return (quantized: tf.Tensor3D): Decoded => {
    const batch = quantized.shape[0];
    const learned = tf.tile(classEmbedding.value.expandDims(0), [batch, 1, 1]); // (B, front, width)
    const x = tf.concat([learned, embed(quantized)], 1).add(positions.value); // (B, front + T, width)
    const y = lnPost(blocks(lnPre(x)).slice([0, front, 0])); // (B, T, width)
    const image = imageHead(y.slice([0, prefix_tokens, 0]), grid, grid);
    const aux = auxHead?.(y.slice([0, 0, 0], [-1, prefix_tokens, -1]), 1, prefix_tokens);
    return { image, aux };
  };
}
