import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import { encodePng } from '../data/images/png.js';
import { splitImages } from '../data/images/split.js';
import { labelledGrid } from '../data/sheets.js';
import { ALONE, type Group } from '../engine/distributed/group.js';
import type { WeightKind } from '../engine/ops/index.js';
import { Interrupted, option } from '../errors.js';
import { makeFolder, removeTemporaries, writeFileAtomic } from '../files/atomic.js';
import { MARK, refuseForeign } from '../files/mark.js';
import { PartialRows, type RowsJob } from '../files/partial-rows.js';
import { writeNpz } from '../formats/npz.js';
import { parseWeightsPath } from '../formats/tensor-file.js';
import type { Job } from '../job/job.js';
import { type Round, runRounds, type Stop } from '../job/rounds.js';
import { toPixels } from '../models/pixels.js';
import { Random } from '../random.js';
import { resolveModel } from '../run/layout.js';
import { type Classes, classLabels, className, NO_CLASS, parseClasses, readClassNames } from './classes.js';
import { loadModels } from './load-models.js';
import { packWeights } from './pack-weights.js';
import { sampleCodes, sampleOptions } from './sampler.js';

const SAMPLES_FILE = 'samples.npz';
const GRID_FILE = 'grid.png';
/** The file that says how the samples beside it were made. */
export const DONE_FILE = 'samples.json';
/** The folder of single images. */
const IMAGES = 'images';
/** Name of an image's file: its number and class. */
const IMAGE_FILE = /^\d{6,}-.*\.png$/;
/** Maximum number of images in the grid, the first of each class. */
const GRID_IMAGES = 200;

export interface SampleImagesOptions {
  generator: string;
  tokenizer: string;
  /** Adapters of the generator, saved apart from it. */
  lora?: string;
  /** Comma-separated class indices or names, `none` for images without a class; all classes if absent. */
  classes?: string;
  /** A file of class names, one per line, used instead of those saved with the generator. */
  classNames?: string;
  /** Number of images per class, or in total. */
  images: { perClass: number } | { count: number };
  /** The folder for `images/`, `grid.png`, `samples.npz` and `samples.json`. */
  out: string;
  /** Whether to write each image as a PNG file. */
  png: boolean;
  /** Whether to write a sheet of the first images of each class. */
  grid: boolean;
  /** Number format of the generator's weights; the samples of bf16 or int8 are different draws. */
  weights: WeightKind;
  /** Whether to keep existing images in `out` if they were made with the same options. */
  reuse?: boolean;
  /** Overrides single settings that were saved with the generator. */
  settings: Partial<Config['sample']>;
}

/** Path, size and modification time, so that another file under the same name is noticed. */
async function identity(path: string): Promise<string> {
  const model = await resolveModel(path);
  const { size, mtimeMs } = await stat(parseWeightsPath(model).file);
  return `${resolve(model)}, ${size} bytes, changed ${new Date(mtimeMs).toISOString()}`;
}

/**
 * Samples images of the classes in turn, 0, 1, …, C − 1, 0, 1, …, which is the order of published samples, and writes
 * them: PNG files, a labelled grid, and `arr_0` (N, S, S, 3) uint8 in the layout of ADM's evaluator. Image i only depends
 * on the seed, i and its class. Finished images are kept in `OUT/partial`, from which a call with the same options resumes
 * after an interruption. Several processes share the batches, and rank 0 writes.
 * @returns the number of images
 * @throws CheckpointError if the generator was not trained with this tokenizer; OutputError if `out` has files of these
 *   names that no earlier call wrote, or cannot be written
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

type Models = Awaited<ReturnType<typeof loadModels>>;

async function sampleWith(
  models: Models,
  options: SampleImagesOptions,
  job: Job,
  signal: AbortSignal,
): Promise<number> {
  const { model, tokenizer, classNames: saved, sample } = models;
  const { weights } = options;
  const { group = ALONE } = job;
  const { noClass } = model;
  const { classes: count } = model.geometry;
  const names = options.classNames ? await readClassNames(options.classNames, count) : saved;
  const known = { names, count };
  const classes = parseClasses(options.classes, known);
  const total = 'count' in options.images ? options.images.count : options.images.perClass * classes.length;
  const labels = Array.from({ length: total }, (_, i) => classes[i % classes.length]);
  const settings = { ...sample, ...options.settings };
  const size = tokenizer.geometry.image_size;
  if (weights !== 'float32') {
    const difference = packWeights(model, weights);
    job.reporter.info(
      `weights in ${weights} move the logits by ${(100 * difference).toPrecision(2)} % of their spread: the images are different draws of similar quality; use float32 for numbers to publish`,
    );
  }
  const { guidance_scale, guidance_power, seed } = settings;
  const free = classes.every((c) => c === noClass);
  job.reporter.info(
    free
      ? `images without a class, so guidance is not used; seed ${seed}`
      : `guidance scale ${guidance_scale}, power ${guidance_power}, seed ${seed}`,
  );
  if (!free && count === 1 && guidance_scale !== 0)
    job.reporter.warn(
      `the generator has one class, so guidance has nothing to tell apart and only amplifies errors; use ${option('guidanceScale', 0)}`,
    );

  const description = {
    software: MARK,
    order: 'classes in turn',
    generator: await identity(options.generator),
    tokenizer: await identity(options.tokenizer),
    ...(options.lora !== undefined && { lora: await identity(options.lora) }),
    classes: classes.map((c) => (c === noClass ? NO_CLASS : c)),
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
      `keeping the images in ${options.out}: ${DONE_FILE} says that they were made with the same options`,
    );
    return total;
  }
  const stop = {
    signal,
    error: (done: number) =>
      new Interrupted(
        `stopped after ${done} images, which are kept in ${options.out}; run the same command again to resume`,
      ),
  };
  const all = { labels, known, size };
  const sizes = { rowBytes: size * size * 3, batch: settings.batch_size, total };
  const partial = group.rank === 0 ? await openPartial(options, description, sizes) : undefined;
  try {
    if (partial && partial.count > 0)
      job.reporter.info(`resuming after ${partial.count} images of an interrupted run in ${partial.folder}`);
    const start = await group.broadcastObject(partial?.count ?? 0);
    await runRounds(
      ownBatches(labels, { start, batch: settings.batch_size, group }),
      {
        progress: { label: 'sample', total, unit: 'images', start },
        // Several processes must stop together, so they check the signal between batches only.
        compute: (batch, round) =>
          sampleBatch(models, batch, settings, round, group.size === 1 ? stop : undefined),
        count: ({ pixels }) => pixels.length / sizes.rowBytes,
        async take({ pixels }) {
          if (options.png) await writeImages(options.out, pixels, partial!.count, all);
          await partial!.append(pixels);
        },
        stop,
      },
      job,
    );
    if (partial) await finish(options, partial, all, { record, signal });
  } finally {
    await partial?.close();
  }
  return total;
}

/** The class of each image, the classes of the generator, and the side of the images in pixels. */
interface Samples {
  labels: readonly number[];
  known: Classes;
  size: number;
}

/** Opens the folder of finished images in `out`. If it starts empty, images of an earlier call in `out` are removed. */
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
 * The images that an earlier call wrote to a folder. Links are left out: the user made them.
 * @throws OutputError if a file with such a name was not written by alitok
 */
async function earlierImages(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const images = entries.filter(({ name }) => IMAGE_FILE.test(name));
  for (const { name } of images) await refuseForeign(join(folder, name));
  return images.filter((entry) => entry.isFile()).map(({ name }) => join(folder, name));
}

/** Writes images as PNG files, numbered from `first`. */
async function writeImages(
  out: string,
  pixels: Uint8Array,
  first: number,
  { labels, known, size }: Samples,
): Promise<void> {
  for (const [i, data] of splitImages(pixels, size).entries()) {
    const index = first + i;
    const name = className(labels[index], known).replace(/[^\w.-]/g, '_');
    const file = `${String(index).padStart(6, '0')}-${name}.png`;
    await writeFileAtomic(join(out, IMAGES, file), await encodePng({ width: size, height: size, data }));
  }
}

/** Whether a folder has the images of the call that `record` describes. */
async function isDone(out: string, record: string): Promise<boolean> {
  return (await readFile(join(out, DONE_FILE), 'utf8').catch(() => '')) === record;
}

/** Writes the files that hold all images, and removes the folder of finished images. */
async function finish(
  { out, grid }: SampleImagesOptions,
  partial: PartialRows,
  all: Samples,
  { record, signal }: { record: string; signal: AbortSignal },
): Promise<void> {
  const { labels, size } = all;
  const shape = [labels.length, size, size, 3];
  // Until the images are complete, this file describes none. It is not removed, since it may be a link.
  await writeFileAtomic(join(out, DONE_FILE), `${JSON.stringify({ software: MARK })}\n`);
  await writeNpz(join(out, SAMPLES_FILE), [
    { name: 'arr_0', dtype: 'u1', shape, data: partial.parts(signal) },
  ]);
  await writeFileAtomic(join(out, DONE_FILE), record);
  if (grid) await writeGrid(join(out, GRID_FILE), partial, all);
  await partial.remove();
}

/** Writes a sheet of the first images of each class, class by class. */
async function writeGrid(path: string, images: PartialRows, { labels, known, size }: Samples): Promise<void> {
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
  const names = classLabels(
    indices.map((i) => labels[i]),
    known,
  );
  await writeFileAtomic(path, await labelledGrid(shown, { size, columns, labels: names }));
}

/** Images that one process samples together. */
interface SampleBatch {
  /** The number of the first one. */
  readonly first: number;
  /** The class of each; none where other processes have the last images. */
  readonly labels: readonly number[];
  /** Images that all processes sample in this round. */
  readonly ofAll: number;
}

/** The batches of this process, which takes turns with the others, from image `start` on. */
function* ownBatches(
  labels: readonly number[],
  { start, batch, group }: { start: number; batch: number; group: Pick<Group, 'rank' | 'size'> },
): Generator<SampleBatch> {
  const perRound = batch * group.size;
  for (let round = start; round < labels.length; round += perRound) {
    const first = round + group.rank * batch;
    yield {
      first,
      labels: labels.slice(first, first + batch),
      ofAll: Math.min(labels.length - round, perRound),
    };
  }
}

/** Samples a batch: uint8 (n, S, S, 3). With `stop` it ends within the batch too, where the signal is aborted. */
async function sampleBatch(
  { model, tokenizer }: Models,
  { first, labels, ofAll }: SampleBatch,
  settings: Config['sample'],
  round: Round,
  stop?: Stop,
): Promise<{ pixels: Uint8Array }> {
  if (labels.length === 0) return { pixels: new Uint8Array() };
  const randoms = labels.map((_, i) => Random.of(settings.seed, `image ${first + i}`));
  const onStep = (step: number) => {
    if (stop?.signal.aborted) throw stop.error(round.done);
    round.update(round.done + Math.floor((ofAll * step) / model.geometry.tokens));
  };
  const codes = await sampleCodes(model, labels, sampleOptions(settings), randoms, { onStep });
  try {
    return { pixels: tf.tidy(() => toPixels(tokenizer.detokenize(codes))) };
  } finally {
    codes.dispose();
  }
}
