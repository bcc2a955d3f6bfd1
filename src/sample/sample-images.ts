import { mkdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { loadGenerator } from '../checkpoint/generator-file.js';
import { resolveModel } from '../checkpoint/run-files.js';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer-file.js';
import type { Config } from '../config/schema.js';
import { encodePng } from '../data/image.js';
import { labelledGrid } from '../data/sheets.js';
import type { WeightKind } from '../engine/ops/index.js';
import { CheckpointError, Interrupted } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import { writeNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import type { Generator } from '../models/generator.js';
import { toPixels } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer.js';
import { Random } from '../random.js';
import { className, parseClasses, readClassNames } from './classes.js';
import { packWeights } from './pack-weights.js';
import { PartialSamples } from './partial-samples.js';
import { sampleCodes, sampleOptions } from './sampler.js';

/** The grid shows at most so many images, the first of each class. */
const GRID_IMAGES = 200;

export interface SampleImagesOptions {
  generator: string;
  tokenizer: string;
  /** Comma-separated class indices or names; all classes if absent. */
  classes?: string;
  /** A file of class names, one a line, in place of those that the generator was saved with. */
  classNames?: string;
  /** How many images of each class, or in all, spread evenly over the classes. */
  images: { perClass: number } | { count: number };
  /** The folder that gets `images/`, `grid.png` and `samples.npz`. */
  out: string;
  /** Whether to write each image as a PNG of its own. */
  png: boolean;
  /** Whether to write a sheet of the first images of each class. */
  grid: boolean;
  /** What the generator's weights are kept in; other than float32, samples are other draws. */
  weights: WeightKind;
  /** Replaces single values of the settings the generator was saved with. */
  settings: Partial<Config['sample']>;
}

/** Path, size and time of change: another file under the same name is another job. */
async function identity(path: string): Promise<string> {
  const file = await resolveModel(path);
  const { size, mtimeMs } = await stat(file);
  return `${resolve(file)}, ${size} bytes, changed ${new Date(mtimeMs).toISOString()}`;
}

/** Tokenizer and generator, which must belong together. Throws CheckpointError. */
async function loadModels(options: SampleImagesOptions) {
  const tokenizer = await loadTokenizer(options.tokenizer);
  const generator = await loadGenerator(options.generator, tokenizer.geometry);
  if (generator.tokenizer !== undefined && generator.tokenizer !== (await fingerprint(tokenizer)))
    throw new CheckpointError(
      `${options.generator} models the codes of tokenizer ${generator.tokenizer}, but ${options.tokenizer} is another; name the tokenizer that made its token cache`,
    );
  const [modelled, made] = [generator.model.geometry.codebook_size, tokenizer.geometry.codebook_size];
  if (modelled !== made)
    throw new CheckpointError(
      `${options.generator} models ${modelled} codes, but ${options.tokenizer} has ${made}; name the tokenizer it was trained with`,
    );
  return { ...generator, tokenizer };
}

/**
 * Samples images class by class and writes them: PNGs, a labelled grid, and `arr_0` (N, S, S, 3) uint8 in the layout
 * of the ADM evaluator. Image i depends on the seed, i and its class only. What is done is kept in `out` until the end,
 * and the same options go on with it after an interruption. Gives the number of images.
 * @throws CheckpointError where the tokenizer is not the one whose codes the generator models
 */
export async function sampleImages(options: SampleImagesOptions, job: Job): Promise<number> {
  const { out, weights } = options;
  const { model, tokenizer, classNames: saved, sample } = await loadModels(options);
  const classNames = options.classNames
    ? await readClassNames(options.classNames, model.geometry.classes)
    : saved;
  const classes = parseClasses(options.classes, classNames, model.geometry.classes);
  const total = 'count' in options.images ? options.images.count : options.images.perClass * classes.length;
  const labels = Array.from({ length: total }, (_, i) => classes[Math.floor((i * classes.length) / total)]);
  const settings = { ...sample, ...options.settings };
  const size = tokenizer.geometry.image_size;
  if (weights !== 'float32') {
    const difference = packWeights(model, weights);
    job.reporter.info(
      `weights in ${weights} move the logits by ${(100 * difference).toPrecision(2)} % of their spread: the images are other draws, close in quality; take float32 for numbers to publish`,
    );
  }
  const { guidance_scale, guidance_power, seed } = settings;
  job.reporter.info(`guidance scale ${guidance_scale}, power ${guidance_power}, seed ${seed}`);

  const folder = join(out, 'images');
  try {
    await mkdir(options.png ? folder : out, { recursive: true });
  } catch (error) {
    throw outputError(out, error);
  }
  const partial = await PartialSamples.open(
    out,
    {
      generator: await identity(options.generator),
      tokenizer: await identity(options.tokenizer),
      classes,
      total,
      png: options.png,
      weights,
      engine: job.engine.description,
      settings,
    },
    { imageBytes: size * size * 3, batch: settings.batch_size, total },
  );
  try {
    if (partial.count > 0)
      job.reporter.info(`goes on after ${partial.count} images of an interrupted run in ${partial.folder}`);
    for await (const pixels of batches(model, tokenizer, labels, settings, partial, job)) {
      const images = splitImages(pixels, size);
      if (options.png)
        for (const [i, data] of images.entries()) {
          const index = partial.count + i;
          const name = className(labels[index], classNames).replace(/[^\w.-]/g, '_');
          const file = `${String(index).padStart(6, '0')}-${name}.png`;
          await writeFileAtomic(join(folder, file), await encodePng({ width: size, height: size, data }));
        }
      await partial.append(pixels);
    }
    const shape = [total, size, size, 3];
    await writeNpz(join(out, 'samples.npz'), [{ name: 'arr_0', dtype: 'u1', shape, data: partial.parts() }]);
    if (options.grid) await writeGrid(join(out, 'grid.png'), partial, labels, classNames, size);
    await partial.remove();
  } finally {
    await partial.close();
  }
  model.dispose();
  tokenizer.parameters.dispose();
  return total;
}

function splitImages(pixels: Uint8Array, size: number): Uint8Array[] {
  const bytes = size * size * 3;
  return Array.from({ length: pixels.length / bytes }, (_, i) => pixels.subarray(i * bytes, (i + 1) * bytes));
}

/** A sheet of the first images of each class, a class after the other. */
async function writeGrid(
  path: string,
  images: PartialSamples,
  labels: readonly number[],
  classNames: readonly string[],
  size: number,
): Promise<void> {
  const classes = new Set(labels).size;
  const perClass = Math.max(
    1,
    Math.min(Math.ceil(labels.length / classes), Math.floor(GRID_IMAGES / classes)),
  );
  const seen = new Map<number, number>();
  const indices = labels
    .flatMap((label, i) => {
      const before = seen.get(label) ?? 0;
      seen.set(label, before + 1);
      return before < perClass ? [i] : [];
    })
    .slice(0, GRID_IMAGES);
  const shown = await Promise.all(indices.map((i) => images.image(i)));
  const columns = Math.min(perClass * Math.max(1, Math.floor(8 / perClass)), 16);
  const names = indices.map((i) => className(labels[i], classNames));
  await writeFileAtomic(path, await labelledGrid(shown, { size, columns, labels: names }));
}

/** Images of `labels` in order from the first that is not done, `batch_size` at a time, as uint8 pixels. */
async function* batches(
  model: Generator,
  tokenizer: Tokenizer,
  labels: readonly number[],
  settings: Config['sample'],
  done: PartialSamples,
  { reporter, signal }: Job,
): AsyncGenerator<Uint8Array> {
  const steps = model.geometry.tokens;
  const progress = reporter.progress({ label: 'sample', total: labels.length, unit: 'images' });
  try {
    for (let start = done.count; start < labels.length; start += settings.batch_size) {
      const own = labels.slice(start, start + settings.batch_size);
      const randoms = own.map((_, i) => Random.of(settings.seed, `image ${start + i}`));
      const onStep = (step: number) => {
        if (signal.aborted)
          throw new Interrupted(
            `stopped after ${start} images, which are in ${done.folder}; the same command goes on`,
          );
        progress.update(start + Math.floor((own.length * step) / steps));
      };
      const codes = await sampleCodes(model, own, sampleOptions(settings), randoms, { onStep });
      const pixels = tf.tidy(() => toPixels(tokenizer.detokenize(codes)));
      codes.dispose();
      progress.update(start + own.length);
      yield pixels;
    }
  } finally {
    progress.stop();
  }
}
