import type { Parameter } from '../../nn/parameters.js';

// Layer-wise learning-rate decay (Clark et al., arXiv 2003.10555): layers near the input, whose features are the most general,
// change less than those near the output.

/** The depth of a parameter's layer, from 0 at the input to `top` at the output. */
export interface Depths {
  of(name: string): number;
  top: number;
}

/** What a parameter's learning rate is multiplied by: decay^(top − depth). */
export const layerDecay =
  (decay: number, { of, top }: Depths) =>
  ({ name }: Parameter): number =>
    decay ** (top - of(name));

/** The index in `prefix.INDEX.…`; undefined for other names. */
function indexIn(prefix: string, name: string): number | undefined {
  return name.startsWith(`${prefix}.`) ? Number(name.slice(prefix.length + 1).split('.')[0]) : undefined;
}

/** Blocks, output. The embeddings learn as fast as the output: among them are the rows of new classes. */
export function generatorDepths({ layers }: { layers: number }): Depths {
  const of = (name: string) => indexIn('blocks', name) ?? layers;
  return { of, top: layers };
}

/** Patches and latent tokens, the encoder's blocks, the codes on both sides of the quantizer, the decoder's blocks, pixels. */
export function tokenizerDepths(sizes: { encoder: { layers: number }; decoder: { layers: number } }): Depths {
  const codes = sizes.encoder.layers + 1;
  const top = codes + sizes.decoder.layers + 1;
  const input = /^(latent_tokens|encoder\.(patch_embed|positional_embedding|latent_token_positional|ln_pre))/;
  const pixels = /^decoder\.(ln_post|ffn|conv_out)/;
  const of = (name: string) => {
    if (input.test(name)) return 0;
    if (pixels.test(name)) return top;
    const encoding = indexIn('encoder.transformer', name);
    if (encoding !== undefined) return encoding + 1;
    const decoding = indexIn('decoder.transformer', name);
    return decoding === undefined ? codes : codes + 1 + decoding;
  };
  return { of, top };
}
