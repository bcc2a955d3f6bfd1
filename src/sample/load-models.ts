import { type GeneratorInfo, loadGenerator } from '../checkpoint/generator.js';
import { loadAdapted } from '../checkpoint/lora.js';
import type { Say } from '../checkpoint/model-file.js';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer.js';
import { CheckpointError } from '../errors.js';
import type { Generator } from '../models/generator/generator.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';

/** Checks that a generator can have been trained on the codes of a tokenizer. Throws CheckpointError. */
async function checkPair(
  path: string,
  generator: GeneratorInfo & { model: Generator },
  tokenizerPath: string,
  tokenizer: Tokenizer,
): Promise<void> {
  if (generator.tokenizer !== undefined && generator.tokenizer !== (await fingerprint(tokenizer)))
    throw new CheckpointError(
      `${path} models the codes of tokenizer ${generator.tokenizer}, but ${tokenizerPath} is a different one; name the tokenizer that made its token cache`,
    );
  const [modelled, made] = [generator.model.geometry.codebook_size, tokenizer.geometry.codebook_size];
  if (modelled !== made)
    throw new CheckpointError(
      `${path} models ${modelled} codes, but ${tokenizerPath} has ${made}; name the tokenizer it was trained with`,
    );
  const [expected, own] = [generator.model.geometry, tokenizer.geometry].map(
    ({ prefix_tokens, grid }) => `${prefix_tokens} + ${grid}²`,
  );
  if (expected !== own)
    throw new CheckpointError(
      `${path} models ${expected} tokens an image, but ${tokenizerPath} has ${own}; name the tokenizer it was trained with, or convert its original again with the config of that tokenizer`,
    );
}

/**
 * Loads a generator for the codes of a tokenizer, with the adapters of `lora` merged into it; `say` as in `withModel`.
 * @throws CheckpointError where they do not belong together
 */
export async function loadGeneratorFor(
  tokenizer: { model: Tokenizer; path: string },
  paths: { generator: string; lora?: string },
  say?: Say,
): Promise<GeneratorInfo & { model: Generator }> {
  const { generator: base, lora } = paths;
  const generator = lora
    ? await loadAdapted({ base, adapters: lora }, say)
    : await loadGenerator(base, tokenizer.model.geometry, say);
  await checkPair(lora ?? base, generator, tokenizer.path, tokenizer.model);
  return generator;
}

/** Loads a tokenizer, and a generator as `loadGeneratorFor`. Throws CheckpointError. */
export async function loadModels(paths: { generator: string; tokenizer: string; lora?: string }, say?: Say) {
  const tokenizer = await loadTokenizer(paths.tokenizer, say);
  const generator = await loadGeneratorFor({ model: tokenizer, path: paths.tokenizer }, paths, say);
  return { ...generator, tokenizer };
}
