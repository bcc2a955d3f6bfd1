import { attentionFlops, type Flops, product } from '../flops.js';
import { type Stage, type TokenizerConfig, tokenizerGeometry } from '../geometry.js';
import { POOLED } from './discriminator.js';
import { quantizerOf } from './quantizers/index.js';

/** Of encoder and decoder: in_proj, out_proj, and an MLP of four times the width. */
function transformer(positions: number, { width, layers }: { width: number; layers: number }): number {
  return layers * (product(positions, width, 12 * width) + attentionFlops(positions, width));
}

export function tokenizerFlops(config: TokenizerConfig, stage: Stage): Flops {
  const { image_size, patch_size, grid, prefix_tokens, tokens, token_size, encoder, decoder } =
    tokenizerGeometry(config);
  const [patches, pixels] = [grid * grid, 3 * patch_size ** 2];
  const front = stage === 1 ? 1 : decoder.class_tokens;
  const flops = new Map([
    ['encoder.patch_embed', product(patches, pixels, encoder.width)],
    ['encoder.transformer', transformer(patches + tokens, encoder)],
    ['encoder.conv_out', product(tokens, encoder.width, token_size)],
    ['quantize', quantizerOf(config).flops(config, tokens)],
    ['decoder.decoder_embed', product(tokens, token_size, decoder.width)],
    ['decoder.transformer', transformer(front + tokens, decoder)],
    ['decoder.ffn', product(patches, decoder.width, pixels)],
    ['decoder.conv_out', product(image_size ** 2, 3, 3)],
  ]);
  if (stage === 1) {
    flops.set('decoder.ffn_aux', product(prefix_tokens, decoder.width, pixels));
    flops.set('decoder.conv_out_aux', product(prefix_tokens * patch_size ** 2, 3, 3));
  }
  return flops;
}

export function discriminatorFlops(
  { hidden_channels, stages }: { hidden_channels: number; stages: number },
  imageSize: number,
): Flops {
  let [side, channels, blocks] = [imageSize, hidden_channels, 0];
  for (let i = 0; i < stages; i++) {
    const next = hidden_channels * 2 ** i;
    blocks += product(side ** 2, 9 * channels, next);
    side = Math.ceil(side / 2);
    blocks += product(side ** 2, 16, next); // the blur, of each channel by itself
    channels = next;
  }
  return new Map([
    ['block_in', product(imageSize ** 2, 25 * 3, hidden_channels)],
    ['blocks', blocks],
    ['to_logits', product(POOLED ** 2, channels, channels) + product(POOLED ** 2, 25 * channels, 1)],
  ]);
}
