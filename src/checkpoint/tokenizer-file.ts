import { createHash } from 'node:crypto';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import type { Stage, TokenizerConfig } from '../models/geometry.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../models/tokenizer/tokenizer.js';
import { resolveModel } from '../run/layout.js';
import { inferTokenizer } from './infer-tokenizer.js';
import { type ModelDescription, type Say, saveModel, withModel } from './model-file.js';

export interface TokenizerDescription extends ModelDescription {
  kind: 'tokenizer';
  stage: Stage;
  tokenizer: TokenizerConfig;
}

export async function saveTokenizer(path: string, tokenizer: Tokenizer): Promise<void> {
  const { stage, config } = tokenizer;
  const description: TokenizerDescription = { kind: 'tokenizer', stage, tokenizer: config };
  await saveModel(path, tokenizer.parameters, description);
}

/** The codebook's usage, which files without the clustering update lack, and which stage 2 has no place for. */
const USAGE = /^quantize\.embed_prob$/;

/** What a tokenizer's tensors must be, given its stage. */
export function tokenizerTensors(stage: Stage): { optional: RegExp; ignore?: RegExp } {
  return stage === 1 ? { optional: USAGE } : { optional: USAGE, ignore: USAGE };
}

/**
 * Describes a tokenizer that others wrote by its tensors.
 * @throws CheckpointError where they do not show all that is needed to build it
 */
export function describeTokenizer(file: TensorFile): TokenizerDescription {
  const { stage, tokenizer, unknownHeads } = inferTokenizer(file);
  if (unknownHeads.length > 0)
    throw new CheckpointError(
      `${file.path} does not say ${unknownHeads.join(' and ')}; say so once by \`alitok convert ${file.path} tokenizer.safetensors ${unknownHeads.map((key) => `${key}=N`).join(' ')}\``,
    );
  return { kind: 'tokenizer', stage, tokenizer };
}

/**
 * Builds the tokenizer that a model file or a run folder holds and loads it, strictly; a published file too.
 * Throws CheckpointError, naming the file and what is wrong.
 */
export async function loadTokenizer(path: string, say?: Say): Promise<Tokenizer> {
  return withModel<TokenizerDescription, Tokenizer>(
    await resolveModel(path),
    'tokenizer',
    async (file, found) => {
      const tokenizer = new Tokenizer(found.tokenizer, found.stage);
      await tokenizer.parameters.load(file, tokenizerTensors(found.stage));
      return tokenizer;
    },
    describeTokenizer,
    say,
  );
}

/**
 * Names what decides the codes: a hash of encoder and codebook, the same for a stage-1 tokenizer and the stage-2
 * tokenizer made from it. 16 hexadecimal digits.
 */
export async function fingerprint(tokenizer: Tokenizer): Promise<string> {
  const hash = createHash('sha256');
  for (const p of tokenizer.parameters) {
    if (p.buffer || !FROZEN_IN_STAGE_2.test(p.name)) continue;
    hash.update(`${p.name} ${p.shape.join()}\n`);
    hash.update((await p.value.data()) as Float32Array);
  }
  return hash.digest('hex').slice(0, 16);
}
