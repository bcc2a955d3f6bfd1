import { type Config, parseConfig } from './schema.js';

/** A published model's sizes, and how it is sampled. */
export type PublishedModel = Pick<Config, 'tokenizer' | 'generator' | 'sample'>;

/**
 * Where the published models differ from the schema's defaults, which are those of model B. The files in `configs/` have the
 * same values, but users may edit those; the published weights do not change with them.
 */
const DIFFERENCES = {
  alitok_b: {},
  alitok_l: { generator: { width: 1024 }, sample: { guidance_scale: 6, guidance_power: 0.7 } },
  alitok_xl: {
    generator: { width: 1280, layers: 32 },
    sample: { guidance_scale: 13, guidance_power: 1.4, seed: 2 },
  },
};

/** The published models by name, model B first; each has the published tokenizer. */
export function publishedModels(): Map<string, PublishedModel> {
  return new Map(
    Object.entries(DIFFERENCES).map(([name, values]) => {
      const { tokenizer, generator, sample } = parseConfig(values, name);
      return [name, { tokenizer, generator, sample }];
    }),
  );
}
