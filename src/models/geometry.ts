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
  /**
   * k: grid + 1 (also if null or absent), an extra token for the top-left patch and one for each patch of the first row; or
   * grid, without the extra one.
   */
  prefix_tokens?: number | null;
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

/** The sizes and what follows from them: grid g = S/p, prefix k, tokens T = k + g². */
export interface TokenizerGeometry extends TokenizerConfig {
  grid: number;
  prefix_tokens: number;
  tokens: number;
}

export function tokenizerGeometry(config: TokenizerConfig): TokenizerGeometry {
  const grid = config.image_size / config.patch_size;
  const prefix_tokens = config.prefix_tokens ?? grid + 1;
  return { ...config, grid, prefix_tokens, tokens: prefix_tokens + grid * grid };
}

/**
 * What is wrong with the number of a tokenizer's prefix tokens, and its key in the config section `tokenizer`; undefined
 * where it is one of the two that there are, or the image is not a whole number of patches.
 */
export function checkPrefix(config: TokenizerConfig): { key: 'prefix_tokens'; message: string } | undefined {
  const { grid, prefix_tokens } = tokenizerGeometry(config);
  if (!Number.isInteger(grid) || prefix_tokens === grid || prefix_tokens === grid + 1) return undefined;
  return {
    key: 'prefix_tokens',
    message: `must be ${grid} or ${grid + 1}, for tokenizer.image_size / tokenizer.patch_size = ${grid} patches a row, and not ${prefix_tokens}`,
  };
}

/** The sizes with `prefix_tokens` null where it is grid + 1, so that equal tokenizers have equal sizes. */
export function normalizePrefix<T extends TokenizerConfig>(config: T): T & { prefix_tokens: number | null } {
  const { grid, prefix_tokens } = tokenizerGeometry(config);
  return { ...config, prefix_tokens: prefix_tokens === grid + 1 ? null : prefix_tokens };
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
