import { stat } from 'node:fs/promises';
import { openDataset, reportFound } from '../data/dataset.js';
import type { Share } from '../data/loader.js';
import { sequentialBatches } from '../data/sequential.js';
import { ConfigError, DataError, option } from '../errors.js';
import type { TypedArray } from '../files/bytes.js';
import { type Npz, openNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';

/** Images of one size, a batch at a time: uint8 (n, size, size, 3). */
export interface ImageSource {
  size: number;
  count: number;
  /**
   * All of them, or those of one of several processes, which take the batches in turn. All have as many then, the last
   * ones perhaps without an image.
   */
  batches(share?: Share): AsyncIterable<Uint8Array>;
}

export interface OpenImagesOptions {
  /** Side in pixels; needed for a folder, whose images are centre-cropped to it. An `.npz` must have it. */
  size?: number;
  /** Of a folder, only the images that this file names. */
  list?: string;
  /** Images in a batch. */
  batch?: number;
  /** Pixels that an image of a folder may have at most. */
  maxPixels?: number;
  /** Hears what is found in a folder, and of every file that is passed over. */
  job?: Pick<Job, 'reporter' | 'group'>;
}

const BATCH = 64;

/**
 * Images of an `.npz` file with `arr_0` (N, S, S, 3) uint8, stored or deflated, or of a folder or tar file, in the order
 * of their names. An image of the asked size is taken as it is; others get ADM's centre crop.
 * Throws DataError if there are no images, or for a folder without a size.
 */
export async function openImages(path: string, options: OpenImagesOptions = {}): Promise<ImageSource> {
  const info = await stat(path).catch(() => undefined);
  const tar = /\.tar(\/|$)/i.test(path);
  if (!info && !tar)
    throw new DataError(`${path} does not exist; name an .npz file, a folder of images or a .tar of them`);
  return tar || info?.isDirectory() ? openFolder(path, options) : openArray(path, options);
}

async function openFolder(
  folder: string,
  { size, list, batch = BATCH, maxPixels, job }: OpenImagesOptions,
): Promise<ImageSource> {
  if (size === undefined)
    throw new DataError(`the size of the images in ${folder} is not known; give ${option('size')}`);
  const dataset = await openDataset({ folder, list, maxPixels });
  if (job) reportFound(dataset, job);
  const hears = job && imageWarnings(job.reporter);
  return {
    size,
    count: dataset.size,
    async *batches(share) {
      const options = { dataset, imageSize: size, batchSize: batch, crops: 'center' as const, ...hears };
      for await (const { images } of sequentialBatches({ ...options, share })) yield images;
    },
  };
}

async function openArray(
  path: string,
  { size, list, batch = BATCH }: OpenImagesOptions,
): Promise<ImageSource> {
  if (list !== undefined)
    throw new ConfigError(
      `${list} names images of a folder, but ${path} is a file; leave ${option('list')} out`,
    );
  const file = await openNpz(path);
  const { shape, dtype } = await file.header('arr_0').finally(() => file.close());
  const [count, height, width, channels] = shape;
  if (shape.length !== 4 || dtype !== 'u1' || height !== width || channels !== 3 || count === 0)
    throw new DataError(
      `${path}: arr_0 is ${dtype} [${shape}]; it must be uint8 images of shape (N, S, S, 3)`,
    );
  if (size !== undefined && height !== size)
    throw new DataError(`${path} has images of ${height} px, not ${size}; make it of images of ${size} px`);
  return {
    size: height,
    count,
    async *batches(share) {
      const npz = await openNpz(path);
      try {
        const shared = share && share.size > 1;
        const rows = shared ? rowsInTurn(npz, count, batch, share) : npz.rows('arr_0', batch);
        for await (const images of rows) yield images as Uint8Array;
      } finally {
        npz.close();
      }
    },
  };
}

/** The batches of one process. What is deflated can be read from its beginning only, by all of them. */
async function* rowsInTurn(
  npz: Npz,
  count: number,
  batch: number,
  { rank, size }: Share,
): AsyncGenerator<TypedArray> {
  const all = npz.isStored('arr_0') ? undefined : npz.rows('arr_0', batch);
  for (let round = 0; round * size * batch < count; round++)
    for (let turn = 0; turn < size; turn++) {
      const start = (round * size + turn) * batch;
      const ofAll = start < count ? (await all?.next())?.value : undefined;
      if (turn !== rank) continue;
      if (start >= count) yield new Uint8Array();
      else if (ofAll) yield ofAll;
      else yield* npz.rows('arr_0', batch, start, Math.min(start + batch, count));
    }
}
