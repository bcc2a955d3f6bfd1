import type { Config } from '../config/schema.js';
import type { Image } from '../data/images/decode.js';
import { ConfigError } from '../errors.js';
import { Random } from '../random.js';
import { NO_CLASS, rangeText } from '../sample/classes.js';
import { loadGeneratorFor } from '../sample/load-models.js';
import { sampleCodes, sampleOptions } from '../sample/sampler.js';
import type { ImageTokenizer } from './tokenizer.js';

/** Sampling settings: section `sample` of a config. Absent ones are those that the generator was saved or published with. */
export type SampleSettings = Partial<Config['sample']>;

/** What an image is sampled of: a class by its index, or no class. */
export type SampledClass = number | 'none';

/** A loaded generator with the tokenizer whose codes it models. */
export interface ImageGenerator {
  /** Number of classes: 0 to `classes` − 1. */
  readonly classes: number;
  /** The names of the classes by index; empty if the data had none. */
  readonly classNames: readonly string[];
  /** The default settings of `sample`. */
  readonly settings: Readonly<Config['sample']>;
  /**
   * Samples an image of each class, `batch_size` at once. Image i depends only on the seed, i and its class. Images without a
   * class are sampled without guidance.
   * @throws ConfigError for a class that does not exist
   */
  sample(classes: readonly SampledClass[], settings?: SampleSettings): Promise<Image[]>;
  /** Samples T codes for each class, for `tokenizer.decode`. @throws ConfigError as `sample` */
  sampleCodes(classes: readonly SampledClass[], settings?: SampleSettings): Promise<Int32Array[]>;
  /** Frees the generator's memory, but not the tokenizer's. */
  dispose(): void;
}

/**
 * Loads a generator: a published `.bin`, a `.safetensors` file, or a run of `alitok train-ar`. `lora` names adapters of it that
 * were saved apart.
 * @throws CheckpointError if a file is missing or damaged, or they do not belong together
 */
export async function openGenerator(
  path: string,
  tokenizer: ImageTokenizer,
  { lora }: { lora?: string } = {},
): Promise<ImageGenerator> {
  const own = { model: tokenizer.model, path: 'the tokenizer that was given' };
  const generator = await loadGeneratorFor(own, { generator: path, lora }, (message) =>
    process.emitWarning(message),
  );
  const { model, classNames, sample: settings } = generator;
  const { classes: count, tokens } = model.geometry;

  function indexOf(c: SampledClass): number {
    if (c === NO_CLASS) return model.noClass;
    if (!Number.isInteger(c) || c < 0 || c >= count)
      throw new ConfigError(`there is no class ${c}; ${rangeText(count)}`);
    return c;
  }

  async function draw(chosen: readonly SampledClass[], given: SampleSettings = {}): Promise<Int32Array[]> {
    const classes = chosen.map(indexOf);
    const all = { ...settings, ...given };
    const rows: Int32Array[] = [];
    for (let start = 0; start < classes.length; start += all.batch_size) {
      const own = classes.slice(start, start + all.batch_size);
      const randoms = own.map((_, i) => Random.of(all.seed, `image ${start + i}`));
      const drawn = await sampleCodes(model, own, sampleOptions(all), randoms);
      const codes = (await drawn.data()) as Int32Array;
      drawn.dispose();
      own.forEach((_, i) => {
        rows.push(codes.slice(i * tokens, (i + 1) * tokens));
      });
    }
    return rows;
  }

  return {
    classes: count,
    classNames,
    settings,
    sampleCodes: draw,
    async sample(classes, given = {}) {
      const codes = await draw(classes, given);
      const { batch_size } = { ...settings, ...given };
      const images: Image[] = [];
      for (let start = 0; start < codes.length; start += batch_size)
        images.push(...tokenizer.decode(codes.slice(start, start + batch_size)));
      return images;
    },
    dispose: () => model.dispose(),
  };
}
