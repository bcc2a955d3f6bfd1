/** Sizes of one of the tokenizer's transformers. */
export interface TransformerSize {
  width: number;
  layers: number;
  heads: number;
}

/** The sizes that define a tokenizer (config section `tokenizer`). */
export interface TokenizerConfig {
  image_size: number;
  patch_size: number;
  /** N: how many codes there are. */
  codebook_size: number;
  /** Width of a latent, and of the token that the decoder reads. */
  token_size: number;
  /** Name in the registry of quantizers (tokenizer/quantizers/index.ts); absent for the published one. */
  quantizer?: string;
  /** Compare and return unit vectors; a setting of the published quantizer. */
  l2_normalize: boolean;
  /** Levels of each channel; a setting of finite scalar quantization. */
  fsq_levels?: readonly number[] | null;
  encoder: TransformerSize;
  decoder: TransformerSize & { class_tokens: number };
}

/** Stage 1 aligns the tokens with a causal decoder; stage 2 retrains a bidirectional one on frozen tokens. */
export type Stage = 1 | 2;

/** The sizes and what follows from them: grid g = S/p, prefix k = g + 1, tokens T = k + g². */
export interface TokenizerGeometry extends TokenizerConfig {
  grid: number;
  prefix_tokens: number;
  tokens: number;
}

export function tokenizerGeometry(config: TokenizerConfig): TokenizerGeometry {
  const grid = config.image_size / config.patch_size;
  return { ...config, grid, prefix_tokens: grid + 1, tokens: grid + 1 + grid * grid };
}

/** How `tokens` codes an image lie: g² and a prefix of g + 1 (null, the default) or g; undefined for another number. */
export function gridOf(tokens: number): { grid: number; prefix_tokens: number | null } | undefined {
  const grid = Math.floor(Math.sqrt(tokens));
  const prefix = tokens - grid * grid;
  if (grid < 1 || (prefix !== grid && prefix !== grid + 1)) return undefined;
  return { grid, prefix_tokens: prefix === grid ? grid : null };
}

/** The sizes that define a generator: config section `generator`, and those of its tokenizer. */
export interface GeneratorConfig {
  width: number;
  layers: number;
  heads: number;
  classes: number;
  codebook_size: number;
  prefix_tokens: number;
  grid: number;
}

export interface GeneratorGeometry extends GeneratorConfig {
  /** T = k + g² codes an image. */
  tokens: number;
  headWidth: number;
}
