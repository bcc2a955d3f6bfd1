import { z } from 'zod';
import { CheckpointError } from '../errors.js';
import { EMBEDDINGS, Generator } from '../models/generator/generator.js';
import { isAdapter, type Lora, mergeInPlace } from '../nn/lora.js';
import type { Parameters, Saved } from '../nn/parameters.js';
import { resolveModel } from '../run/layout.js';
import { type ModelDescription, size } from './description.js';
import { fingerprintOf } from './fingerprint.js';
import {
  differingSize,
  type GeneratorDescription,
  type GeneratorInfo,
  generatorDescription,
  generatorKind,
} from './generator.js';
import { type ModelKind, type Say, saveModel, withModel } from './model-file.js';

/** What belongs to adapters besides their parameters; `generator` has the sizes of the generator with merged adapters. */
export interface AdapterInfo extends GeneratorInfo {
  lora: Lora;
  /** Fingerprint of the generator that they adapt. */
  base: string;
}

export type AdapterDescription = ModelDescription & AdapterInfo & { kind: 'adapters' };

/** The description of adapters in their file. */
export const adapterDescription = generatorDescription.extend({
  kind: z.literal('adapters'),
  lora: z.looseObject({ rank: size, alpha: z.number().positive() }),
  base: z.string(),
});

const adapterKind: ModelKind<AdapterDescription> = { kind: 'adapters', schema: adapterDescription };

/** What a file of adapters has of a generator's parameters: the adapters, and the embeddings, which have own classes. */
export function adapterParameters(parameters: Parameters): Parameters {
  return parameters.filter((p) => isAdapter(p) || p.name === EMBEDDINGS);
}

/** Identifies the generator that adapters belong to, by the parameters that they do not replace. */
export function fingerprintOfBase(parameters: Parameters, adapters: Parameters): Promise<string> {
  return fingerprintOf([...parameters].filter((p) => !isAdapter(p) && !adapters.get(p.name)));
}

export async function saveAdapters(
  path: string,
  adapters: Iterable<Saved>,
  info: AdapterInfo,
): Promise<void> {
  const description: AdapterDescription = { kind: 'adapters', ...info };
  await saveModel(path, adapters, description);
}

/** Refuses a generator of other sizes than the adapters'. @throws CheckpointError */
function checkBase(
  paths: { base: string; adapters: string },
  { generator: base }: GeneratorDescription,
  { generator: adapted }: AdapterDescription,
): void {
  const other = differingSize(base, adapted);
  if (other !== undefined)
    throw new CheckpointError(
      `${paths.adapters} has adapters of a generator of ${other} ${adapted[other]}, but ${paths.base} has ${base[other]}; name the one that they were trained on`,
    );
}

/**
 * Loads a generator and merges adapters into it, which were saved apart from it.
 * @throws CheckpointError where they do not belong together
 */
export async function loadAdapted(
  paths: { base: string; adapters: string },
  say?: Say,
): Promise<GeneratorInfo & { model: Generator }> {
  const { base, adapters } = paths;
  return withModel(
    await resolveModel(adapters),
    adapterKind,
    async (file, description: AdapterDescription) => {
      const { generator, classNames, tokenizer, sample, lora } = description;
      const own = adapterParameters(new Generator(generator, { lora }).parameters);
      await own.load(file);
      const model = new Generator(generator);
      try {
        await withModel(
          await resolveModel(base),
          generatorKind(generator),
          async (baseFile, baseDescription: GeneratorDescription) => {
            checkBase(paths, baseDescription, description);
            const taken = model.parameters.filter((p) => !own.get(p.name));
            await taken.load(baseFile, { ignore: new RegExp(`^${EMBEDDINGS}$`) });
          },
          say,
        );
        const found = await fingerprintOfBase(model.parameters, own);
        if (found !== description.base)
          throw new CheckpointError(
            `${adapters} adapts generator ${description.base}, but ${base} is ${found}; name the one that it was trained on`,
          );
        mergeInPlace(model.parameters, own, lora);
      } catch (error) {
        model.dispose();
        throw error;
      } finally {
        own.dispose();
      }
      return { model, generator, classNames, tokenizer, sample };
    },
  );
}
