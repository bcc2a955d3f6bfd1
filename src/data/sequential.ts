import { type ImageSet, subset } from './image-set.js';
import type { Image } from './images/decode.js';
import { admCenterCrop, cropAndFlip, tenCrop } from './images/preprocess.js';
import {
  type Batch,
  CONCURRENCY,
  type LoaderOptions,
  Reader,
  type Sample,
  type Share,
  toBatch,
} from './loader.js';
import { prefetch } from './prefetch.js';

/** How images are cropped for tokenizing or evaluation; see preprocess.ts. */
export type Crops = 'center' | 'flip' | 'ten-crop';

/** Number of crops per image. */
export const CROP_COUNTS: Record<Crops, number> = { center: 1, flip: 2, 'ten-crop': 10 };

const PREPARE: Record<Crops, (image: Image, size: number) => Promise<Image[]>> = {
  center: async (image, size) => [await admCenterCrop(image, size)],
  flip: cropAndFlip,
  'ten-crop': tenCrop,
};

/** Where to resume a sequence. */
export interface SequenceStart {
  /** Index of the first file that has not been read. */
  readonly entry: number;
  /** Indices of the files before it that could not be read. */
  readonly unreadable: readonly number[];
}

function* from(first: number, end: number): Generator<number> {
  for (let index = first; index < end; index++) yield index;
}

/**
 * All readable images once, in the data set's order, or those from `start` on, each cropped as given: `images` is
 * (batchSize · crops, S, S, 3), fewer in the last batch. Leaving the iteration stops decoding.
 * Processes that share the images take turns: in each round, each process takes the next batchSize files. All processes
 * have the same number of rounds; a batch is empty if no file is left for it, or none of its files can be read.
 * @throws DataError if more than 1 % of the files cannot be read
 */
export async function* sequentialBatches(
  options: LoaderOptions & { readonly crops: Crops; readonly start?: SequenceStart },
): AsyncGenerator<Batch> {
  const { dataset, imageSize, batchSize, crops, start, concurrency = CONCURRENCY } = options;
  const reader = new Reader(options, (image) => PREPARE[crops](image, imageSize), start?.unreadable);
  const load = async (index: number) => ({ index, crops: await reader.read(index) });
  const limits = { concurrency, ahead: Math.max(concurrency, 2 * batchSize) };
  if (options.share && options.share.size > 1) {
    yield* roundBatches(options, options.share, start?.entry ?? 0, load, limits);
    reader.tellSmall();
    return;
  }
  let samples: Sample[] = [];
  for await (const { index, crops } of prefetch(from(start?.entry ?? 0, dataset.size), load, limits)) {
    if (!crops) continue;
    samples.push({ index, crops });
    if (samples.length === batchSize) {
      yield toBatch(samples, options);
      samples = [];
    }
  }
  if (samples.length > 0) yield toBatch(samples, options);
  reader.tellSmall();
}

/** The batches of one of several processes; see `sequentialBatches`. */
async function* roundBatches(
  options: LoaderOptions,
  { rank, size }: Share,
  first: number,
  load: (index: number) => Promise<{ index: number; crops: Image[] | undefined }>,
  limits: { concurrency: number; ahead: number },
): AsyncGenerator<Batch> {
  const { dataset, batchSize } = options;
  const total = dataset.size;
  const rounds = Math.ceil((total - first) / (batchSize * size));
  const startOf = (round: number) => first + (round * size + rank) * batchSize;
  function* indices() {
    for (let round = 0; round < rounds; round++) {
      const end = Math.min(total, startOf(round) + batchSize);
      for (let index = startOf(round); index < end; index++) yield index;
    }
  }
  const loaded = prefetch(indices(), load, limits);
  try {
    for (let round = 0; round < rounds; round++) {
      const samples: Sample[] = [];
      const count = Math.max(0, Math.min(batchSize, total - startOf(round)));
      for (let i = 0; i < count; i++) {
        const { index, crops } = (await loaded.next()).value as Awaited<ReturnType<typeof load>>;
        if (crops) samples.push({ index, crops });
      }
      yield toBatch(samples, options);
    }
  } finally {
    await loaded.return(undefined);
  }
}

/**
 * Up to `count` evenly spaced images of a data set, centre-cropped, as uint8 (n, S, S, 3), and their classes.
 * @param warnings called for images that are skipped or enlarged
 * @throws DataError if more than 1 % of the images cannot be read
 */
export async function readEvenly(
  dataset: ImageSet,
  imageSize: number,
  count: number,
  warnings: Pick<LoaderOptions, 'onUnreadable' | 'onSmall'> = {},
): Promise<{ images: Uint8Array; classes: Int32Array }> {
  const n = Math.min(count, dataset.size);
  const chosen = Array.from({ length: n }, (_, i) => Math.floor((i * dataset.size) / n));
  const images: Uint8Array[] = [];
  const classes: number[] = [];
  for await (const batch of sequentialBatches({
    dataset: subset(dataset, chosen),
    imageSize,
    batchSize: 64,
    crops: 'center',
    ...warnings,
  })) {
    images.push(batch.images);
    classes.push(...batch.classes);
  }
  return { images: new Uint8Array(Buffer.concat(images)), classes: Int32Array.from(classes) };
}
