import { z } from 'zod';
import { loadConfig } from '../config/load.js';
import { type PublishedModel, publishedModels } from '../config/published.js';
import type { Config } from '../config/schema.js';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { Generator } from '../models/generator/generator.js';
import { type GeneratorConfig, tokenizerGeometry } from '../models/geometry.js';
import type { Saved } from '../nn/parameters.js';
import { resolveModel } from '../run/layout.js';
import { classNames, gridSide, type ModelDescription, size, transformer } from './description.js';
import { layersOf, shapeOf } from './infer.js';
import { type ModelKind, type Say, saveModel, withModel } from './model-file.js';

/** What belongs to a generator besides its parameters. */
export interface GeneratorInfo {
  generator: GeneratorConfig;
  /** Names of its classes by index, if the data had names. */
  classNames: string[];
  /** Fingerprint of the tokenizer whose codes it models, if known. */
  tokenizer?: string;
  /** The guidance and seed it was meant to be sampled with (config section `sample`). */
  sample: Config['sample'];
}

export type GeneratorDescription = ModelDescription & GeneratorInfo & { kind: 'generator' };

/** A generator's description in its file. */
export const generatorDescription = z.looseObject({
  kind: z.literal('generator'),
  generator: z.looseObject({
    ...transformer,
    classes: size,
    codebook_size: size,
    prefix_tokens: gridSide,
    grid: gridSide,
  }),
  classNames,
  tokenizer: z.string().optional(),
  sample: z.record(z.string(), z.union([z.number(), z.boolean(), z.string(), z.null()])),
});

/** What no tensor of a generator shows: how an image's tokens lie. */
export type TokenGrid = Pick<GeneratorConfig, 'prefix_tokens' | 'grid'>;

/** The published model of the same width, layers, heads, classes and codebook, with its name, if there is one. */
export function publishedGenerator(
  sizes: GeneratorConfig,
): [name: string, model: PublishedModel] | undefined {
  return [...publishedModels()].find(([, { generator, tokenizer }]) => {
    const same = (['width', 'layers', 'heads', 'classes'] as const).every(
      (key) => generator[key] === sizes[key],
    );
    return same && tokenizer.codebook_size === sizes.codebook_size;
  });
}

/** The first size that two generators must share for one to take the weights of the other, and do not. */
export function differingSize(one: GeneratorConfig, other: GeneratorConfig) {
  return (['width', 'layers', 'heads', 'codebook_size'] as const).find((key) => one[key] !== other[key]);
}

/**
 * Reads the sizes of a generator from its tensors; `grid` is that of its tokenizer, by default the published one's.
 * @throws CheckpointError where the tensors do not fit together
 */
export function inferGenerator(file: TensorFile, grid?: TokenGrid): GeneratorConfig {
  const { prefix_tokens, grid: side } =
    grid ?? tokenizerGeometry([...publishedModels().values()][0].tokenizer);
  const [vocabulary, width] = shapeOf(file, 'embeddings.weight', 2);
  const [codebook_size] = shapeOf(file, 'output.weight', 2);
  const [headWidth] = shapeOf(file, 'blocks.0.attn.q_norm.weight', 1);
  const classes = vocabulary - codebook_size - 2;
  const heads = width / headWidth;
  if (classes < 1 || !Number.isInteger(heads))
    throw new CheckpointError(
      `${file.path}: no generator has a vocabulary of ${vocabulary} for ${codebook_size} codes, or heads of ${headWidth} of ${width} channels`,
    );
  const layers = layersOf(file.tensors, 'blocks');
  return { width, layers, heads, classes, codebook_size, prefix_tokens, grid: side };
}

/**
 * Describes a third-party generator by its tensors, with the published settings for sampling where it is one of the
 * published models, and otherwise the defaults.
 * @throws CheckpointError where the tensors do not show its sizes
 */
export function describeGenerator(file: TensorFile, grid?: TokenGrid): GeneratorDescription {
  const generator = inferGenerator(file, grid);
  const [, config] = publishedGenerator(generator) ?? ['', loadConfig(undefined)];
  return { kind: 'generator', generator, classNames: [], sample: config.sample };
}

export async function saveGenerator(
  path: string,
  parameters: Iterable<Saved>,
  info: GeneratorInfo,
): Promise<void> {
  const description: GeneratorDescription = { kind: 'generator', ...info };
  await saveModel(path, parameters, description);
}

/** What `withModel` needs to open a generator; `grid` as for `loadGenerator`. */
export const generatorKind = (grid?: TokenGrid): ModelKind<GeneratorDescription> => ({
  kind: 'generator',
  schema: generatorDescription,
  infer: (file) => describeGenerator(file, grid),
});

/**
 * Builds the generator of a model file or run folder and loads it, strictly. A published file does not show how an image's
 * tokens lie: `grid` is that of the tokenizer it is used with. Throws CheckpointError.
 */
export async function loadGenerator(
  path: string,
  grid?: TokenGrid,
  say?: Say,
): Promise<GeneratorInfo & { model: Generator }> {
  return withModel<GeneratorDescription, GeneratorInfo & { model: Generator }>(
    await resolveModel(path),
    generatorKind(grid),
    async (file, { generator, classNames, tokenizer, sample }) => {
      const model = new Generator(generator);
      await model.parameters.load(file);
      return { model, generator, classNames, tokenizer, sample };
    },
    say,
  );
}
