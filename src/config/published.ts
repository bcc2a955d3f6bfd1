import { type Config, parseConfig } from './schema.js';

/** What is known of a published model: its sizes, and how it is sampled. */
export type PublishedModel = Pick<Config, 'tokenizer' | 'generator' | 'sample'>;

/**
 * What the published models have other than the schema's defaults, which are those of model B. The files in `configs/` say
 * the same; they are for users to edit, and weights are the same weights whatever becomes of them.
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
