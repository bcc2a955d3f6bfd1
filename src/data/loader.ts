import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import type { Group } from '../engine/distributed/group.js';
import { DataError } from '../errors.js';
import { Random } from '../random.js';
import type { ImageSet } from './image-set.js';
import { decodeImage, type Image } from './images/decode.js';
import {
  admCenterCrop,
  cropAndFlip,
  randomCropAndFlip,
  resizeShorterSide,
  tenCrop,
} from './images/preprocess.js';
import { prefetch } from './prefetch.js';

export interface Batch {
  /** (images, S, S, 3), 8 bits; the crops of one file follow each other. */
  readonly images: Uint8Array;
  /** The class of each file. */
  readonly classes: Int32Array;
  /** The index of each file in the data set. */
  readonly indices: Uint32Array;
}

export interface LoaderOptions {
  readonly dataset: ImageSet;
  /** S, in pixels. */
  readonly imageSize: number;
  /** Files in a batch. */
  readonly batchSize: number;
  /** Called once for each file that cannot be read, with the path and the error. */
  readonly onUnreadable?: (path: string, error: Error) => void;
  /** Called once, after all images have been read or reading ends, where some were smaller than `imageSize`. */
  readonly onSmall?: (found: SmallImages) => void;
  /** Files decoded at the same time. */
  readonly concurrency?: number;
  /** Which of how many equal stretches of each batch to load; the whole batch if absent. */
  readonly share?: Share;
}

/** Images with a side shorter than the size they are wanted in, which were enlarged. */
export interface SmallImages {
  /** What holds them. */
  readonly root: string;
  readonly count: number;
  readonly imageSize: number;
  /** The first of them, with its size. */
  readonly example: string;
}

/** One of several processes that divide the images. */
export interface Share {
  readonly rank: number;
  readonly size: number;
}

/** Each image takes several turns of the event loop, which comes by between steps only: many images share them. */
const CONCURRENCY = 16;

/** The prepared images of a data set that fits are kept in memory. */
const CACHE_BYTES = 2 ** 30;

/** Share of a data set's files that may be unreadable. */
const MAX_UNREADABLE = 0.01;

/** Reads the files of a data set and keeps count of those that cannot be read, or are enlarged. */
class Reader<T> {
  private readonly unreadable = new Map<number, string>();
  private readonly small = new Set<number>();
  /** The first of them in the data set's order, whatever the order they are read in. */
  private firstSmall?: { readonly index: number; readonly text: string };
  private toldSmall = false;

  constructor(
    private readonly options: LoaderOptions,
    private readonly prepare: (image: Image) => Promise<T>,
    /** Files that an earlier process could not read. */
    unreadable: readonly number[] = [],
  ) {
    for (const index of unreadable) this.unreadable.set(index, options.dataset.path(index));
  }

  /** Those that could not be read so far, in order. */
  get known(): number[] {
    return [...this.unreadable.keys()].sort((a, b) => a - b);
  }

  /**
   * Passes over files that another process could not read.
   * @throws DataError where they are more than 1 % of the data set together
   */
  pass(others: Iterable<number>): void {
    const before = this.unreadable.size;
    for (const index of others) this.unreadable.set(index, this.options.dataset.path(index));
    if (this.unreadable.size > before) this.check();
  }

  /**
   * One file, prepared; undefined where it cannot be read.
   * @throws DataError where that is the case for more than 1 % of the data set
   */
  async read(index: number): Promise<T | undefined> {
    if (this.unreadable.has(index)) return undefined;
    const { dataset, onUnreadable } = this.options;
    const path = dataset.location(index);
    try {
      const image = await decodeImage(path, dataset.read(index), dataset.maxPixels);
      this.noteSize(index, image);
      return await this.prepare(image);
    } catch (error) {
      if (this.unreadable.has(index)) return undefined; // read twice at the same time
      this.unreadable.set(index, dataset.path(index));
      onUnreadable?.(path, error as Error);
      this.check(error);
      return undefined;
    }
  }

  private noteSize(index: number, { width, height }: Image): void {
    const { dataset, imageSize } = this.options;
    if (Math.min(width, height) >= imageSize) return;
    this.small.add(index);
    if (index < (this.firstSmall?.index ?? Number.POSITIVE_INFINITY))
      this.firstSmall = { index, text: `${dataset.path(index)}, ${width} × ${height}` };
  }

  /** Tells, at its first call, of the images so far that were enlarged. */
  tellSmall(): void {
    const { small, firstSmall, toldSmall } = this;
    const { dataset, imageSize, onSmall } = this.options;
    this.toldSmall = true;
    if (!toldSmall && firstSmall)
      onSmall?.({ root: dataset.root, count: small.size, imageSize, example: firstSmall.text });
  }

  private check(cause?: unknown): void {
    const { root, size } = this.options.dataset;
    const count = this.unreadable.size;
    if (count <= MAX_UNREADABLE * size) return;
    const first = [...this.unreadable.values()].slice(0, 3).join(', ');
    throw new DataError(
      `${count} of ${size} images in ${root} cannot be read, more than 1 % (${first}${count > 3 ? ', …' : ''}); repair or remove them`,
      { cause },
    );
  }
}

interface Sample {
  readonly index: number;
  readonly crops: readonly Image[];
}

function toBatch(samples: readonly Sample[], { dataset, imageSize }: LoaderOptions): Batch {
  const crops = samples.flatMap((sample) => sample.crops);
  const size = imageSize * imageSize * 3;
  const images = new Uint8Array(crops.length * size);
  crops.forEach((crop, i) => {
    images.set(crop.data, i * size);
  });
  const indices = Uint32Array.from(samples, (sample) => sample.index);
  return { images, classes: Int32Array.from(indices, (index) => dataset.classes[index]), indices };
}

/** The place of the next batch's first image in the training order. */
export interface Position {
  readonly epoch: number;
  readonly offset: number;
  /** Files that could not be read so far; absent where there are none. */
  readonly unreadable?: readonly number[];
}

/** A place in an epoch's order. */
type Place = Pick<Position, 'epoch' | 'offset'> & { readonly order: Uint32Array };

/**
 * Endless batches of training crops: each epoch in a new random order, a batch may span
 * two epochs. Order and crops depend on the seed and the position alone, so that a loader started at a
 * saved position goes on exactly. In the place of an unreadable file stands the next readable one of its
 * epoch. Images of a small data set are decoded once and kept.
 */
export class TrainingLoader {
  private delivered: number;
  /** When every image has been read, this process's first pass is over. */
  private readonly passEnd: number;
  private readonly reader: Reader<Image>;
  private readonly samples: AsyncGenerator<Sample>;

  constructor(
    private readonly options: LoaderOptions & { readonly seed: number; readonly position?: Position },
  ) {
    const { dataset, imageSize, position, concurrency = CONCURRENCY } = options;
    this.delivered = position ? position.epoch * dataset.size + position.offset : 0;
    this.passEnd = this.delivered + dataset.size;
    this.reader = new Reader(options, (image) => resizeShorterSide(image, imageSize), position?.unreadable);
    const read = keepSmall(this.reader, options);
    this.samples = prefetch(this.ownPlaces(this.delivered), (place) => this.load(place, read), {
      concurrency,
      ahead: 2 * this.own,
    });
  }

  /** The position after the batches that `next` has given. */
  get position(): Position {
    const size = this.options.dataset.size;
    const unreadable = this.reader.known;
    return {
      epoch: Math.floor(this.delivered / size),
      offset: this.delivered % size,
      ...(unreadable.length > 0 && { unreadable }),
    };
  }

  /**
   * Tells each process of a group what the others could not read, so that the limit is one of all of them, and so is
   * what a checkpoint remembers.
   * @throws DataError where that is more than 1 % of the files
   */
  async gatherUnreadable(group: Group): Promise<void> {
    if (group.size === 1) return;
    const all = await gatherArrays(group, { unreadable: Uint32Array.from(this.reader.known) });
    for (const { unreadable } of all) this.reader.pass(unreadable);
  }

  /** Images of a batch that are this process's. */
  private get own(): number {
    return this.options.batchSize / (this.options.share?.size ?? 1);
  }

  /**
   * The next batch, or this process's share of it: `images` (batchSize, S, S, 3). Not to be called again before it has
   * answered.
   * @throws DataError where more than 1 % of the files cannot be read
   */
  async next(): Promise<Batch> {
    const { batchSize } = this.options;
    const samples: Sample[] = [];
    while (samples.length < this.own) {
      const { value, done } = await this.samples.next();
      if (done) throw new Error('the loader is closed');
      samples.push(value);
    }
    this.delivered += batchSize;
    if (this.delivered >= this.passEnd) this.reader.tellSmall();
    return toBatch(samples, this.options);
  }

  /** The files of a batch, relative to the data set's root. */
  paths({ indices }: Batch): string[] {
    return Array.from(indices, (index) => this.options.dataset.path(index));
  }

  /** Ends decoding; waits for what is running. */
  async close(): Promise<void> {
    await this.samples.return(undefined);
    this.reader.tellSmall();
  }

  /** The places of this process's stretch of each batch. */
  private *ownPlaces(start: number): Generator<Place> {
    const { batchSize, share } = this.options;
    const first = (share?.rank ?? 0) * this.own;
    let at = 0;
    for (const place of this.places(start)) {
      if (at >= first && at < first + this.own) yield place;
      at = (at + 1) % batchSize;
    }
  }

  private *places(start: number): Generator<Place> {
    const size = this.options.dataset.size;
    for (let epoch = Math.floor(start / size), offset = start % size; ; epoch++, offset = 0) {
      const order = Random.of(this.options.seed, `order/${epoch}`).permutation(size);
      for (; offset < size; offset++) yield { epoch, offset, order };
    }
  }

  private async load(
    { epoch, offset, order }: Place,
    read: (index: number) => Promise<Image | undefined>,
  ): Promise<Sample> {
    const { imageSize, seed } = this.options;
    for (let skipped = 0; skipped < order.length; skipped++) {
      const index = order[(offset + skipped) % order.length];
      const image = await read(index);
      if (image) {
        const random = Random.of(seed, `crop/${epoch}/${index}`);
        return { index, crops: [randomCropAndFlip(image, imageSize, random)] };
      }
    }
    throw new DataError(`no image in ${this.options.dataset.root} can be read; repair the folder`);
  }
}

/** Reading with a memory, where the data set's images at S × S fit into it. */
function keepSmall(reader: Reader<Image>, { dataset, imageSize }: LoaderOptions) {
  const kept: (Image | undefined)[] = [];
  let room = CACHE_BYTES;
  if (dataset.size * imageSize * imageSize * 3 > room) room = 0;
  return async (index: number): Promise<Image | undefined> => {
    if (kept[index]) return kept[index];
    const image = await reader.read(index);
    if (image && !kept[index] && image.data.length <= room) {
      kept[index] = image;
      room -= image.data.length;
    }
    return image;
  };
}

/** How an image is cut for tokenizing or evaluation: see preprocess.ts for each. */
export type Crops = 'center' | 'flip' | 'ten-crop';

/** Crops an image gives. */
export const CROP_COUNTS: Record<Crops, number> = { center: 1, flip: 2, 'ten-crop': 10 };

const PREPARE: Record<Crops, (image: Image, size: number) => Promise<Image[]>> = {
  center: async (image, size) => [await admCenterCrop(image, size)],
  flip: cropAndFlip,
  'ten-crop': tenCrop,
};

/** Where a sequence goes on: the first entry it has not read, and those before it that could not be read. */
export interface SequenceStart {
  readonly entry: number;
  readonly unreadable: readonly number[];
}

function* from(first: number, end: number): Generator<number> {
  for (let index = first; index < end; index++) yield index;
}

/**
 * All readable images once, in the data set's order, or those from `start` on, each cut into the given crops: `images` is
 * (batchSize · crops, S, S, 3), less in the last batch. Leaving the iteration ends decoding.
 * Processes that share the images take turns: of the data set's stretches of batchSize files, each takes one a round.
 * All have as many rounds; a batch has no images where none is left or readable.
 * @throws DataError where more than 1 % of the files cannot be read
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

/** The batches of one process in turn; see `sequentialBatches`. */
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
