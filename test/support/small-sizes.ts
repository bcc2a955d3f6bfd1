/** Model sizes that train almost instantly. */
export const TRANSFORMER = { width: 32, layers: 2, heads: 2 };

/** A tokenizer of images of 16 × 16 in 2 × 2 patches. */
export const TOKENIZER = {
  image_size: 16,
  patch_size: 8,
  codebook_size: 16,
  token_size: 4,
  encoder: TRANSFORMER,
  decoder: { ...TRANSFORMER, class_tokens: 2 },
};
