import type { GeneratorConfig, Stage, TokenizerConfig } from './geometry.js';
import { tokenizerGeometry } from './geometry.js';

/**
 * Multiplications and additions of one image's forward pass, by the prefix of the parameters that they are made with.
 * Only matrix products and convolutions count, which are nearly all; attention counts in full also where it is causal.
 */
export type Operations = ReadonlyMap<string, number>;

/** All of them, or those made with the parameters whose names begin with `prefix`. */
export const totalOperations = (operations: Operations, prefix = ''): number =>
  [...operations].reduce((sum, [name, count]) => sum + (`${name}.`.startsWith(prefix) ? count : 0), 0);

/** A layer from `inputs` to `outputs` channels at `positions` positions. */
const product = (positions: number, inputs: number, outputs: number) => 2 * positions * inputs * outputs;

/** Queries by keys, and weights by values, of all heads. */
const attention = (positions: number, width: number) => 2 * product(positions, width, positions);

/** Transformer of the tokenizer: in_proj, out_proj, and an MLP of four times the width. */
function transformer(positions: number, { width, layers }: { width: number; layers: number }): number {
  return layers * (product(positions, width, 12 * width) + attention(positions, width));
}

export function tokenizerOperations(config: TokenizerConfig, stage: Stage): Operations {
  const { image_size, patch_size, grid, prefix_tokens, tokens, token_size, codebook_size, encoder, decoder } =
    tokenizerGeometry(config);
  const [patches, pixels] = [grid * grid, 3 * patch_size ** 2];
  const front = stage === 1 ? 1 : decoder.class_tokens;
  const operations = new Map([
    ['encoder.patch_embed', product(patches, pixels, encoder.width)],
    ['encoder.transformer', transformer(patches + tokens, encoder)],
    ['encoder.conv_out', product(tokens, encoder.width, token_size)],
    ['quantize', product(tokens, token_size, codebook_size)],
    ['decoder.decoder_embed', product(tokens, token_size, decoder.width)],
    ['decoder.transformer', transformer(front + tokens, decoder)],
    ['decoder.ffn', product(patches, decoder.width, pixels)],
    ['decoder.conv_out', product(image_size ** 2, 3, 3)],
  ]);
  if (stage === 1) {
    operations.set('decoder.ffn_aux', product(prefix_tokens, decoder.width, pixels));
    operations.set('decoder.conv_out_aux', product(prefix_tokens * patch_size ** 2, 3, 3));
  }
  return operations;
}

/** Of the whole sequence at once, as in training; sampling a sequence with a cache comes to about the same. */
export function generatorOperations(config: GeneratorConfig, hidden: number): Operations {
  const { width, layers, codebook_size, prefix_tokens, grid } = config;
  const positions = 1 + prefix_tokens + grid * grid;
  const layer =
    product(positions, width, 4 * width) +
    product(positions, width, 3 * hidden) +
    attention(positions, width);
  return new Map([
    ['blocks', layers * layer],
    ['output', product(positions, width, codebook_size)],
  ]);
}

export function discriminatorOperations(
  { hidden_channels, stages }: { hidden_channels: number; stages: number },
  imageSize: number,
  pooled: number,
): Operations {
  let [side, channels, blocks] = [imageSize, hidden_channels, 0];
  for (let i = 0; i < stages; i++) {
    const next = hidden_channels * 2 ** i;
    blocks += product(side ** 2, 9 * channels, next);
    side = Math.ceil(side / 2);
    blocks += product(side ** 2, 16, next); // the blur, a channel by itself
    channels = next;
  }
  return new Map([
    ['block_in', product(imageSize ** 2, 25 * 3, hidden_channels)],
    ['blocks', blocks],
    ['to_logits', product(pooled ** 2, channels, channels) + product(pooled ** 2, 25 * channels, 1)],
  ]);
}
