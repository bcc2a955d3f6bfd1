import { stat } from 'node:fs/promises';
import { openDataset, reportFound } from '../data/dataset.js';
import type { Share } from '../data/loader.js';
import { sequentialBatches } from '../data/sequential.js';
import { ConfigError, DataError, option } from '../errors.js';
import type { TypedArray } from '../files/bytes.js';
import { type Npz, openNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';

/** Images of one size, read in batches: uint8 (n, S, S, 3). */
export interface ImageSource {
  /** S, in pixels. */
  size: number;
  count: number;
  /**
   * All batches, or those of one of several processes, which take the batches in turn. All processes get the same number
   * of batches; the last may be empty.
   */
  batches(share?: Share): AsyncIterable<Uint8Array>;
}

export interface OpenImagesOptions {
  /** Side in pixels. Needed for a folder, whose images are centre-cropped to it; an `.npz` must have this size. */
  size?: number;
  /** A file with the paths of the images to use from a folder. */
  list?: string;
  /** Images per batch. */
  batch?: number;
  /** Maximum number of pixels of an image in a folder. */
  maxPixels?: number;
  /** Reports what is found in a folder, and every file that is skipped. */
  job?: Pick<Job, 'reporter' | 'group'>;
}

const BATCH = 64;

/**
 * Opens the images of an `.npz` file with `arr_0` (N, S, S, 3) uint8, stored or deflated, or of a folder or tar file, in
 * the order of their names. Images of the requested size are used unchanged; others get ADM's centre crop.
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
    throw new DataError(`the size of the images in ${folder} is unknown; give ${option('size')}`);
  const dataset = await openDataset({ folder, list, maxPixels });
  if (job) reportFound(dataset, job);
  const warnings = job && imageWarnings(job.reporter);
  return {
    size,
    count: dataset.size,
    async *batches(share) {
      const options = { dataset, imageSize: size, batchSize: batch, crops: 'center' as const, ...warnings };
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
      `${list} lists images of a folder, but ${path} is a file; leave ${option('list')} out`,
    );
  const file = await openNpz(path);
  const { shape, dtype } = await file.header('arr_0').finally(() => file.close());
  const [count, height, width, channels] = shape;
  if (shape.length !== 4 || dtype !== 'u1' || height !== width || channels !== 3 || count === 0)
    throw new DataError(
      `${path}: arr_0 is ${dtype} [${shape}]; it must be uint8 images of shape (N, S, S, 3)`,
    );
  if (size !== undefined && height !== size)
    throw new DataError(
      `${path} has images of ${height} px, not ${size}; use a file with images of ${size} px`,
    );
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

/** The batches of one of several processes. A deflated array can only be read from the start, so each process reads all. */
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
