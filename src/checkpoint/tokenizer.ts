import { z } from 'zod';
import { publishedModels } from '../config/published.js';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import {
  checkPrefix,
  normalizePrefix,
  type Stage,
  type TokenizerConfig,
  type TransformerSize,
} from '../models/geometry.js';
import {
  checkQuantizer,
  PUBLISHED_QUANTIZER,
  QUANTIZER_NAMES,
} from '../models/tokenizer/quantizers/index.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../models/tokenizer/tokenizer.js';
import { resolveModel } from '../run/layout.js';
import { gridSide, type ModelDescription, side, size, transformer } from './description.js';
import { fingerprintOf } from './fingerprint.js';
import { layersOf, shapeOf } from './infer.js';
import { type ModelKind, type Say, saveModel, withModel } from './model-file.js';

export interface TokenizerDescription extends ModelDescription {
  kind: 'tokenizer';
  stage: Stage;
  tokenizer: TokenizerConfig;
}

/** A tokenizer's description in its file. Older ones name no quantizer and no prefix: those that were the only ones. */
export const tokenizerDescription = z.looseObject({
  kind: z.literal('tokenizer'),
  stage: z.literal([1, 2]),
  tokenizer: z
    .looseObject({
      image_size: side,
      patch_size: side,
      prefix_tokens: size.nullable().default(null),
      codebook_size: size,
      token_size: size,
      quantizer: z.enum(QUANTIZER_NAMES).default(PUBLISHED_QUANTIZER),
      l2_normalize: z.boolean(),
      fsq_levels: z.array(size.min(2)).min(1).max(64).nullable().default(null),
      encoder: z.looseObject(transformer),
      decoder: z.looseObject({ ...transformer, class_tokens: size }),
    })
    .refine(({ image_size, patch_size }) => gridSide.safeParse(image_size / patch_size).success, {
      message: 'must have a whole number of patches a side, 512 at the most',
      path: ['patch_size'],
    })
    .superRefine((config, context) => {
      for (const wrong of [checkQuantizer(config), checkPrefix(config)])
        if (wrong) context.addIssue({ code: 'custom', path: [wrong.key], message: wrong.message });
    })
    .transform(normalizePrefix),
});

/** Sizes of a tokenizer that its tensors show; what they do not show is as published. */
export interface InferredTokenizer {
  stage: Stage;
  tokenizer: TokenizerConfig;
  /** The config keys of heads that no tensor shows, at widths other than the published ones; `heads` is then 1. */
  unknownHeads: string[];
}

/**
 * Reads the sizes of a third-party tokenizer from its tensors. No tensor shows how its attention is split into heads: at
 * the published widths that is as published. Its quantizer is the published one.
 * @throws CheckpointError where the tensors do not fit together
 */
export function inferTokenizer(file: TensorFile): InferredTokenizer {
  const { path, tensors } = file;
  const published = [...publishedModels().values()][0].tokenizer;
  const unknownHeads: string[] = [];
  const transformerOf = (part: 'encoder' | 'decoder', width: number): TransformerSize => {
    const same = [published.encoder, published.decoder].find((known) => known.width === width);
    if (!same) unknownHeads.push(`tokenizer.${part}.heads`);
    return { width, layers: layersOf(tensors, `${part}.transformer`), heads: same?.heads ?? 1 };
  };

  if (![...tensors.keys()].some((name) => name.startsWith('quantize.')))
    throw new CheckpointError(
      `${path} has no codebook (quantize.embedding.weight), and no description that names another quantizer; take the file that alitok wrote`,
    );
  const stage: Stage = tensors.has('decoder.ffn_aux.0.weight') ? 1 : 2;
  const [tokens] = shapeOf(file, 'latent_tokens', 2);
  const [positions] = shapeOf(file, 'encoder.positional_embedding', 2);
  const [encoderWidth, , patch_size] = shapeOf(file, 'encoder.patch_embed.weight', 4);
  const [decoderWidth] = shapeOf(file, 'decoder.decoder_embed.weight', 2);
  const [learned] = shapeOf(file, 'decoder.class_embedding', 2);
  const [codebook_size, token_size] = shapeOf(file, 'quantize.embedding.weight', 2);
  const grid = Math.sqrt(positions);
  const tokenizer = normalizePrefix({
    ...published,
    image_size: grid * patch_size,
    patch_size,
    prefix_tokens: tokens - positions,
    codebook_size,
    token_size,
    encoder: transformerOf('encoder', encoderWidth),
    decoder: {
      ...transformerOf('decoder', decoderWidth),
      class_tokens: stage === 2 ? learned : published.decoder.class_tokens,
    },
  });
  if (!Number.isInteger(grid) || checkPrefix(tokenizer))
    throw new CheckpointError(
      `${path} has ${positions} patches and ${tokens} tokens an image; a tokenizer has g² patches and g² + g or g² + g + 1 tokens`,
    );
  return { stage, unknownHeads, tokenizer };
}

/**
 * Describes a third-party tokenizer by its tensors.
 * @throws CheckpointError where they do not show all that is needed to build it
 */
export function describeTokenizer(file: TensorFile): TokenizerDescription {
  const { stage, tokenizer, unknownHeads } = inferTokenizer(file);
  if (unknownHeads.length > 0)
    throw new CheckpointError(
      `${file.path} does not show ${unknownHeads.join(' and ')}; write it down once by \`alitok convert ${file.path} tokenizer.safetensors ${unknownHeads.map((key) => `${key}=N`).join(' ')}\``,
    );
  return { kind: 'tokenizer', stage, tokenizer };
}

export async function saveTokenizer(path: string, tokenizer: Tokenizer): Promise<void> {
  const { stage, config } = tokenizer;
  const description: TokenizerDescription = { kind: 'tokenizer', stage, tokenizer: config };
  await saveModel(path, tokenizer.parameters, description);
}

/** The codebook usage: absent from files without the clustering update, and not part of a stage-2 tokenizer. */
const USAGE = /^quantize\.embed_prob$/;

/** Which tensors a tokenizer's file may lack or have besides the model's, given its stage. */
export function tokenizerTensors(stage: Stage): { optional: RegExp; ignore?: RegExp } {
  return stage === 1 ? { optional: USAGE } : { optional: USAGE, ignore: USAGE };
}

/** What `withModel` needs to open a tokenizer. */
export const tokenizerKind: ModelKind<TokenizerDescription> = {
  kind: 'tokenizer',
  schema: tokenizerDescription,
  infer: describeTokenizer,
};

/**
 * Builds the tokenizer of a model file or a run folder and loads it, strictly; a published file too.
 * @throws CheckpointError, naming the file and what is wrong
 */
export async function loadTokenizer(path: string, say?: Say): Promise<Tokenizer> {
  return withModel<TokenizerDescription, Tokenizer>(
    await resolveModel(path),
    tokenizerKind,
    async (file, { tokenizer: config, stage }) => {
      const tokenizer = new Tokenizer(config, stage);
      await tokenizer.parameters.load(file, tokenizerTensors(stage));
      return tokenizer;
    },
    say,
  );
}

/**
 * Identifies what decides the codes: a hash of encoder and quantizer, the same for a stage-1 tokenizer and the stage-2
 * tokenizer made from it. 16 hexadecimal digits.
 */
export async function fingerprint(tokenizer: Tokenizer): Promise<string> {
  const deciding = [...tokenizer.parameters].filter(
    ({ name }) => FROZEN_IN_STAGE_2.test(name) && !USAGE.test(name),
  );
  return fingerprintOf(deciding, tokenizer.quantizer.identity);
}
