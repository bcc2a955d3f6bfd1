import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import { encodePng } from '../data/images/decode.js';
import { labelledGrid } from '../data/sheets.js';
import { ALONE } from '../engine/distributed/group.js';
import type { WeightKind } from '../engine/ops/index.js';
import { Interrupted } from '../errors.js';
import { makeFolder, removeTemporaries, writeFileAtomic } from '../files/atomic.js';
import { MARK, refuseForeign } from '../files/mark.js';
import { PartialRows, type RowsJob } from '../files/partial-rows.js';
import { writeNpz } from '../formats/npz.js';
import { parseWeightsPath } from '../formats/tensor-file.js';
import type { Job } from '../job/job.js';
import type { Generator } from '../models/generator/generator.js';
import { toPixels } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { Random } from '../random.js';
import { resolveModel } from '../run/layout.js';
import { className, parseClasses, readClassNames } from './classes.js';
import { loadModels } from './load-models.js';
import { packWeights } from './pack-weights.js';
import { sampleCodes, sampleOptions } from './sampler.js';

const SAMPLES_FILE = 'samples.npz';
const GRID_FILE = 'grid.png';
/** What the samples beside it are made of. */
export const DONE_FILE = 'samples.json';
/** The folder of single images. */
const IMAGES = 'images';
/** An image's file in it: its number and class. */
const IMAGE_FILE = /^\d{6,}-.*\.png$/;
/** The grid shows at most so many images, the first of each class. */
const GRID_IMAGES = 200;

export interface SampleImagesOptions {
  generator: string;
  tokenizer: string;
  /** Comma-separated class indices or names; all classes if absent. */
  classes?: string;
  /** A file of class names, one a line, in place of those that the generator was saved with. */
  classNames?: string;
  /** How many images of each class, or in all. */
  images: { perClass: number } | { count: number };
  /** The folder that gets `images/`, `grid.png`, `samples.npz` and `samples.json`. */
  out: string;
  /** Whether to write each image as a PNG of its own. */
  png: boolean;
  /** Whether to write a sheet of the first images of each class. */
  grid: boolean;
  /** What the generator's weights are kept in; other than float32, samples are other draws. */
  weights: WeightKind;
  /** Whether images are taken as they are where `out` has those of the same job already. */
  reuse?: boolean;
  /** Replaces single values of the settings the generator was saved with. */
  settings: Partial<Config['sample']>;
}

/** Path, size and time of change: another file under the same name is another job. */
async function identity(path: string): Promise<string> {
  const model = await resolveModel(path);
  const { size, mtimeMs } = await stat(parseWeightsPath(model).file);
  return `${resolve(model)}, ${size} bytes, changed ${new Date(mtimeMs).toISOString()}`;
}

/**
 * Samples images of the classes in turn, 0, 1, …, C − 1, 0, 1, …, as published samples are ordered, and writes them: PNGs,
 * a labelled grid, and `arr_0` (N, S, S, 3) uint8 in the layout of the ADM evaluator. Image i depends on the seed, i and its
 * class only. What is done is kept in `out` until the end,
 * and the same options go on with it after an interruption. Several processes share the batches, and rank 0 writes.
 * Gives the number of images.
 * @throws CheckpointError where the tokenizer is not the one whose codes the generator models; OutputError where `out`
 *   has files of these names that are not of an earlier call, or cannot be written
 */
export async function sampleImages(options: SampleImagesOptions, job: Job): Promise<number> {
  const models = await loadModels(options, job.reporter.warn);
  try {
    return await job.interruptible((signal) => sampleWith(models, options, job, signal));
  } finally {
    models.model.dispose();
    models.tokenizer.parameters.dispose();
  }
}

async function sampleWith(
  { model, tokenizer, classNames: saved, sample }: Awaited<ReturnType<typeof loadModels>>,
  options: SampleImagesOptions,
  job: Job,
  signal: AbortSignal,
): Promise<number> {
  const { weights } = options;
  const { group = ALONE } = job;
  const classNames = options.classNames
    ? await readClassNames(options.classNames, model.geometry.classes)
    : saved;
  const classes = parseClasses(options.classes, classNames, model.geometry.classes);
  const total = 'count' in options.images ? options.images.count : options.images.perClass * classes.length;
  const labels = Array.from({ length: total }, (_, i) => classes[i % classes.length]);
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

  const description = {
    software: MARK,
    order: 'classes in turn',
    generator: await identity(options.generator),
    tokenizer: await identity(options.tokenizer),
    classes,
    total,
    png: options.png,
    weights,
    engine: job.engine.description,
    settings,
  };
  const record = `${JSON.stringify(description, null, 2)}\n`;
  if (
    options.reuse &&
    (await group.broadcastObject(group.rank === 0 ? await isDone(options.out, record) : undefined))
  ) {
    job.reporter.info(
      `${join(options.out, DONE_FILE)} is of the same options: its images are taken as they are`,
    );
    return total;
  }
  const all = { labels, classNames, size };
  const sizes = { rowBytes: size * size * 3, batch: settings.batch_size, total };
  const partial = group.rank === 0 ? await openPartial(options, description, sizes) : undefined;
  try {
    if (partial && partial.count > 0)
      job.reporter.info(`goes on after ${partial.count} images of an interrupted run in ${partial.folder}`);
    const start = await group.broadcastObject(partial?.count ?? 0);
    const from = { start, out: options.out };
    for await (const pixels of batches(model, tokenizer, all, settings, from, job, signal)) {
      if (!partial) continue;
      if (options.png) await writeImages(options.out, pixels, partial.count, all);
      await partial.append(pixels);
    }
    if (partial) await finish(options, partial, all, { record, signal });
  } finally {
    await partial?.close();
  }
  return total;
}

/** What is sampled: the class of each image, the classes' names, and the images' side. */
interface Samples {
  labels: readonly number[];
  classNames: readonly string[];
  size: number;
}

/** The folder of images so far, beside where they will be. What is there of an earlier call makes room. */
async function openPartial(
  { out, png, grid }: SampleImagesOptions,
  description: RowsJob,
  sizes: { rowBytes: number; batch: number; total: number },
): Promise<PartialRows> {
  const files = [SAMPLES_FILE, DONE_FILE, ...(grid ? [GRID_FILE] : [])];
  for (const file of files) await refuseForeign(join(out, file));
  const images = join(out, IMAGES);
  const earlier = png ? await earlierImages(images) : [];
  await makeFolder(png ? images : out);
  const rows = await PartialRows.open(join(out, 'partial'), description, { name: 'pixels', ...sizes });
  await removeTemporaries(images);
  await removeTemporaries(out, files);
  if (rows.count === 0) for (const path of earlier) await rm(path);
  return rows;
}

/**
 * The images of an earlier call in a folder; links to them are the user's. @throws OutputError where one of such a name is
 * not of this program
 */
async function earlierImages(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const images = entries.filter(({ name }) => IMAGE_FILE.test(name));
  for (const { name } of images) await refuseForeign(join(folder, name));
  return images.filter((entry) => entry.isFile()).map(({ name }) => join(folder, name));
}

/** Writes images as PNG files, numbered from `first` on. */
async function writeImages(
  out: string,
  pixels: Uint8Array,
  first: number,
  { labels, classNames, size }: Samples,
): Promise<void> {
  for (const [i, data] of splitImages(pixels, size).entries()) {
    const index = first + i;
    const name = className(labels[index], classNames).replace(/[^\w.-]/g, '_');
    const file = `${String(index).padStart(6, '0')}-${name}.png`;
    await writeFileAtomic(join(out, IMAGES, file), await encodePng({ width: size, height: size, data }));
  }
}

/** Whether the images of a job, which `record` describes, are in a folder already. */
async function isDone(out: string, record: string): Promise<boolean> {
  return (await readFile(join(out, DONE_FILE), 'utf8').catch(() => '')) === record;
}

/** Writes what is made of all images, and removes the folder of those so far. */
async function finish(
  { out, grid }: SampleImagesOptions,
  partial: PartialRows,
  all: Samples,
  { record, signal }: { record: string; signal: AbortSignal },
): Promise<void> {
  const { labels, classNames, size } = all;
  const shape = [labels.length, size, size, 3];
  // Until the images are there this says of what none are; removed, a link to it would be lost.
  await writeFileAtomic(join(out, DONE_FILE), `${JSON.stringify({ software: MARK })}\n`);
  await writeNpz(join(out, SAMPLES_FILE), [
    { name: 'arr_0', dtype: 'u1', shape, data: partial.parts(signal) },
  ]);
  await writeFileAtomic(join(out, DONE_FILE), record);
  if (grid) await writeGrid(join(out, GRID_FILE), partial, labels, classNames, size);
  await partial.remove();
}

function splitImages(pixels: Uint8Array, size: number): Uint8Array[] {
  const bytes = size * size * 3;
  return Array.from({ length: pixels.length / bytes }, (_, i) => pixels.subarray(i * bytes, (i + 1) * bytes));
}

/** A sheet of the first images of each class, a class after the other. */
async function writeGrid(
  path: string,
  images: PartialRows,
  labels: readonly number[],
  classNames: readonly string[],
  size: number,
): Promise<void> {
  const classes = new Set(labels).size;
  const perClass = Math.max(
    1,
    Math.min(Math.ceil(labels.length / classes), Math.floor(GRID_IMAGES / classes)),
  );
  const ofClass = new Map(labels.map((label): [number, number[]] => [label, []]));
  for (const [i, label] of labels.entries()) ofClass.get(label)!.push(i);
  const indices = [...ofClass.values()].flatMap((own) => own.slice(0, perClass)).slice(0, GRID_IMAGES);
  const shown = await Promise.all(indices.map((i) => images.row(i)));
  const columns = Math.min(perClass * Math.max(1, Math.floor(8 / perClass)), 16);
  const names = indices.map((i) => className(labels[i], classNames));
  await writeFileAtomic(path, await labelledGrid(shown, { size, columns, labels: names }));
}

/**
 * Images of `labels` in order from `first` on, `batch_size` at a time, as uint8 pixels. Of several processes each samples
 * every so many batches, and all get all.
 */
async function* batches(
  model: Generator,
  tokenizer: Tokenizer,
  { labels }: Samples,
  settings: Config['sample'],
  { start: first, out }: { start: number; out: string },
  { reporter, group = ALONE }: Job,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const steps = model.geometry.tokens;
  const { batch_size: batch, seed } = settings;
  const progress = reporter.progress({ label: 'sample', total: labels.length, unit: 'images' });
  const stopped = (start: number) =>
    new Interrupted(`stopped after ${start} images, which are kept in ${out}; the same command goes on`);
  try {
    for (let start = first; start < labels.length; start += batch * group.size) {
      // Several processes must stop together, so they look between batches only.
      if (await group.any(signal.aborted)) throw stopped(start);
      const ownStart = start + group.rank * batch;
      const own = labels.slice(ownStart, ownStart + batch);
      const made = Math.min(labels.length - start, batch * group.size);
      const randoms = own.map((_, i) => Random.of(seed, `image ${ownStart + i}`));
      const onStep = (step: number) => {
        if (signal.aborted && group.size === 1) throw stopped(start);
        progress.update(start + Math.floor((made * step) / steps));
      };
      let pixels: Uint8Array = new Uint8Array();
      if (own.length > 0) {
        const codes = await sampleCodes(model, own, sampleOptions(settings), randoms, { onStep });
        pixels = tf.tidy(() => toPixels(tokenizer.detokenize(codes)));
        codes.dispose();
      }
      for (const part of await group.allGatherBytes(pixels)) if (part.length > 0) yield part;
      progress.update(start + made);
    }
  } finally {
    progress.stop();
  }
}
