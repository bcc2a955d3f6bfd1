import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import type { Group } from '../engine/distributed/group.js';
import { DataError } from '../errors.js';
import { Random } from '../random.js';
import type { ImageSet } from './image-set.js';
import { decodeImage, type Image } from './images/decode.js';
import { randomCropAndFlip, resizeShorterSide } from './images/preprocess.js';
import { prefetch } from './prefetch.js';

export interface Batch {
  /** uint8 (images, S, S, 3); the crops of a file are adjacent. */
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
  /** The part of each batch to load; the whole batch if absent. */
  readonly share?: Share;
}

/** Images with a side shorter than the requested size, which were enlarged. */
export interface SmallImages {
  /** The folder or tar files that hold them. */
  readonly root: string;
  readonly count: number;
  readonly imageSize: number;
  /** The first of them, with its size. */
  readonly example: string;
}

/** One of several processes that share the images. */
export interface Share {
  readonly rank: number;
  readonly size: number;
}

/** Decoding an image takes several turns of the event loop, which only turns between steps: many images share a turn. */
export const CONCURRENCY = 16;

/** Prepared images are kept in memory if all of them fit into this. */
const CACHE_BYTES = 2 ** 30;

/** Largest share of a data set's files that may be unreadable. */
const MAX_UNREADABLE = 0.01;

/** Reads the files of a data set, and counts those that cannot be read or are enlarged. */
export class Reader<T> {
  private readonly unreadable = new Map<number, string>();
  private readonly small = new Set<number>();
  /** The first of them in the data set's order, which is not the order of reading. */
  private firstSmall?: { readonly index: number; readonly text: string };
  private toldSmall = false;

  constructor(
    private readonly options: LoaderOptions,
    private readonly prepare: (image: Image) => Promise<T>,
    /** Files that could not be read before this run was interrupted. */
    unreadable: readonly number[] = [],
  ) {
    for (const index of unreadable) this.unreadable.set(index, options.dataset.path(index));
  }

  /** Indices of the files that could not be read so far, in order. */
  get known(): number[] {
    return [...this.unreadable.keys()].sort((a, b) => a - b);
  }

  /**
   * Skips files that another process could not read.
   * @throws DataError if more than 1 % of the files are unreadable on all processes together
   */
  pass(others: Iterable<number>): void {
    const before = this.unreadable.size;
    for (const index of others) this.unreadable.set(index, this.options.dataset.path(index));
    if (this.unreadable.size > before) this.check();
  }

  /**
   * Reads and prepares one file; undefined if it cannot be read.
   * @throws DataError if more than 1 % of the files cannot be read
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
      if (this.unreadable.has(index)) return undefined; // it was being read twice
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

  /** On its first call, reports the images that were enlarged so far. */
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

/** A file's crops. */
export interface Sample {
  readonly index: number;
  readonly crops: readonly Image[];
}

export function toBatch(samples: readonly Sample[], { dataset, imageSize }: LoaderOptions): Batch {
  const crops = samples.flatMap((sample) => sample.crops);
  const size = imageSize * imageSize * 3;
  const images = new Uint8Array(crops.length * size);
  crops.forEach((crop, i) => {
    images.set(crop.data, i * size);
  });
  const indices = Uint32Array.from(samples, (sample) => sample.index);
  return { images, classes: Int32Array.from(indices, (index) => dataset.classes[index]), indices };
}

/** The position of the next batch in the training order. */
export interface Position {
  readonly epoch: number;
  readonly offset: number;
  /** Files that could not be read so far; absent if all could be read. */
  readonly unreadable?: readonly number[];
}

/** A position in an epoch's order. */
type Place = Pick<Position, 'epoch' | 'offset'> & { readonly order: Uint32Array };

/**
 * Endless batches of random training crops. Each epoch has a new random order, and a batch may span two epochs. Order and
 * crops depend on the seed and the position alone, so a loader that starts at a saved position continues exactly. An
 * unreadable file is replaced by the next readable one of its epoch. Images of a small data set are decoded once and kept
 * in memory.
 */
export class TrainingLoader {
  private delivered: number;
  /** Images delivered at the end of this process's first pass over the data set. */
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

  /** The position after the batches that `next` has returned. */
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
   * Shares the unreadable files among the processes of a group, so that the limit applies to all of them together and a
   * checkpoint has all of them.
   * @throws DataError if more than 1 % of the files are unreadable
   */
  async gatherUnreadable(group: Group): Promise<void> {
    if (group.size === 1) return;
    const all = await gatherArrays(group, { unreadable: Uint32Array.from(this.reader.known) });
    for (const { unreadable } of all) this.reader.pass(unreadable);
  }

  /** The number of images of a batch that this process loads. */
  private get own(): number {
    return this.options.batchSize / (this.options.share?.size ?? 1);
  }

  /**
   * The next batch, or this process's share of it: `images` is (batchSize, S, S, 3). Calls must not overlap.
   * @throws DataError if more than 1 % of the files cannot be read
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

  /** Stops decoding, and waits for images that are being decoded. */
  async close(): Promise<void> {
    await this.samples.return(undefined);
    this.reader.tellSmall();
  }

  /** The positions of this process's part of each batch. */
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

/** Reads images and keeps them in memory if the whole data set fits at S × S. */
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
