import { Generator } from '../models/generator.js';
import type { GeneratorConfig } from '../models/geometry.js';
import type { Parameters } from '../nn/parameters.js';
import { type ModelDescription, saveModel, withModel } from './model-file.js';
import { resolveModel } from './run-files.js';

/** What belongs to a generator besides its parameters. */
export interface GeneratorInfo {
  generator: GeneratorConfig;
  /** Names of its classes by index, if the data had names. */
  classNames: string[];
  /** Fingerprint of the tokenizer whose codes it models, if known. */
  tokenizer?: string;
  /** The guidance and seed it was meant to be sampled with (config section `sample`). */
  sample: Record<string, number>;
}

type GeneratorDescription = ModelDescription & GeneratorInfo & { kind: 'generator' };

export async function saveGenerator(
  path: string,
  parameters: Parameters,
  info: GeneratorInfo,
): Promise<void> {
  const description: GeneratorDescription = { kind: 'generator', ...info };
  await saveModel(path, parameters, description);
}

/** The fingerprint of the tokenizer whose codes a saved generator models, if known. Throws CheckpointError. */
export async function generatorTokenizer(path: string): Promise<string | undefined> {
  return withModel<GeneratorDescription, string | undefined>(
    await resolveModel(path),
    'generator',
    async (_, { tokenizer }) => tokenizer,
  );
}

/** Builds the generator of a model file or run folder and loads it, strictly. Throws CheckpointError. */
export async function loadGenerator(path: string): Promise<GeneratorInfo & { model: Generator }> {
  return withModel<GeneratorDescription, GeneratorInfo & { model: Generator }>(
    await resolveModel(path),
    'generator',
    async (file, { generator, classNames, tokenizer, sample }) => {
      const model = new Generator(generator);
      await model.parameters.load(file);
      return { model, generator, classNames, tokenizer, sample };
    },
  );
}
