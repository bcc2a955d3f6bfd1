import { publishedModels } from '../config/published.js';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import type { Stage, TokenizerConfig, TransformerSize } from '../models/geometry.js';
import { layersOf, shapeOf } from './infer.js';

/** Sizes of a tokenizer that its tensors show; what they do not show is as published. */
export interface InferredTokenizer {
  stage: Stage;
  tokenizer: TokenizerConfig;
  /** Widths other than the published ones, whose number of heads no tensor shows; `heads` is then 1. */
  unknownHeads: string[];
}

/**
 * Reads the sizes of a tokenizer from its tensors. No tensor shows how its attention is split into heads: at the
 * published widths that is as published.
 * @throws CheckpointError where the tensors do not fit together
 */
export function inferTokenizer(file: TensorFile): InferredTokenizer {
  const { path, tensors } = file;
  const published = [...publishedModels().values()][0].tokenizer;
  const unknownHeads: string[] = [];
  const size = (part: 'encoder' | 'decoder', width: number): TransformerSize => {
    const same = [published.encoder, published.decoder].find((known) => known.width === width);
    if (!same) unknownHeads.push(`tokenizer.${part}.heads`);
    return { width, layers: layersOf(tensors, `${part}.transformer`), heads: same?.heads ?? 1 };
  };

  const stage: Stage = tensors.has('decoder.ffn_aux.0.weight') ? 1 : 2;
  const [tokens] = shapeOf(file, 'latent_tokens', 2);
  const [positions] = shapeOf(file, 'encoder.positional_embedding', 2);
  const [encoderWidth, , patch_size] = shapeOf(file, 'encoder.patch_embed.weight', 4);
  const [decoderWidth] = shapeOf(file, 'decoder.decoder_embed.weight', 2);
  const [learned] = shapeOf(file, 'decoder.class_embedding', 2);
  const [codebook_size, token_size] = shapeOf(file, 'quantize.embedding.weight', 2);
  const grid = Math.sqrt(positions);
  if (!Number.isInteger(grid) || tokens !== positions + grid + 1)
    throw new CheckpointError(
      `${path} has ${positions} patches and ${tokens} tokens an image; a tokenizer has g² patches and g² + g + 1 tokens`,
    );
  return {
    stage,
    unknownHeads,
    tokenizer: {
      image_size: grid * patch_size,
      patch_size,
      codebook_size,
      token_size,
      l2_normalize: published.l2_normalize,
      encoder: size('encoder', encoderWidth),
      decoder: {
        ...size('decoder', decoderWidth),
        class_tokens: stage === 2 ? learned : published.decoder.class_tokens,
      },
    },
  };
}
