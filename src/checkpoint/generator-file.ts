import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { Generator } from '../models/generator/generator.js';
import type { GeneratorConfig } from '../models/geometry.js';
import type { Parameters } from '../nn/parameters.js';
import { resolveModel } from '../run/layout.js';
import { inferGenerator, publishedGenerator, type TokenGrid } from './infer-generator.js';
import { type ModelDescription, type Say, saveModel, withModel } from './model-file.js';

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

export async function saveGenerator(
  path: string,
  parameters: Parameters,
  info: GeneratorInfo,
): Promise<void> {
  const description: GeneratorDescription = { kind: 'generator', ...info };
  await saveModel(path, parameters, description);
}

/**
 * Describes a generator that others wrote by its tensors, with the published settings for sampling where it is one of
 * the published, and otherwise the defaults.
 * @throws CheckpointError where the tensors do not show its sizes
 */
export function describeGenerator(file: TensorFile, grid?: TokenGrid): GeneratorDescription {
  const generator = inferGenerator(file, grid);
  const [, config] = publishedGenerator(generator) ?? ['', loadConfig(undefined)];
  return { kind: 'generator', generator, classNames: [], sample: config.sample };
}

/**
 * Builds the generator of a model file or run folder and loads it, strictly. A published file says nothing of how an
 * image's tokens lie: that is then as in the tokenizer it is used with, `grid`. Throws CheckpointError.
 */
export async function loadGenerator(
  path: string,
  grid?: TokenGrid,
  say?: Say,
): Promise<GeneratorInfo & { model: Generator }> {
  return withModel<GeneratorDescription, GeneratorInfo & { model: Generator }>(
    await resolveModel(path),
    'generator',
    async (file, { generator, classNames, tokenizer, sample }) => {
      const model = new Generator(generator);
      await model.parameters.load(file);
      return { model, generator, classNames, tokenizer, sample };
    },
    (file) => describeGenerator(file, grid),
    say,
  );
}
