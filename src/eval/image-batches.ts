import { stat } from 'node:fs/promises';
import { openDataset } from '../data/dataset.js';
import { type LoaderOptions, sequentialBatches } from '../data/loader.js';
import { DataError } from '../errors.js';
import { openNpz } from '../formats/npz.js';

/** Images of one size, a batch at a time: uint8 (n, size, size, 3). */
export interface ImageSource {
  size: number;
  count: number;
  batches(): AsyncIterable<Uint8Array>;
}

const BATCH = 64;

type OnUnreadable = LoaderOptions['onUnreadable'];

/**
 * Images of an `.npz` file with `arr_0` (N, S, S, 3) uint8, or of a folder or tar file, centre-cropped to `size`.
 * `onUnreadable` hears of every file of a folder that is passed over. Throws DataError if there are no images, or for a
 * folder without a size.
 */
export async function openImages(
  path: string,
  size?: number,
  onUnreadable?: OnUnreadable,
): Promise<ImageSource> {
  const info = await stat(path).catch(() => undefined);
  const tar = /\.tar(\/|$)/i.test(path);
  if (!info && !tar)
    throw new DataError(`${path} does not exist; name an .npz file, a folder of images or a .tar of them`);
  return tar || info?.isDirectory() ? openFolder(path, size, onUnreadable) : openArray(path);
}

async function openFolder(
  folder: string,
  size: number | undefined,
  onUnreadable: OnUnreadable,
): Promise<ImageSource> {
  if (size === undefined)
    throw new DataError(`the size of the images in ${folder} is not known; give --size`);
  const dataset = await openDataset({ folder });
  return {
    size,
    count: dataset.size,
    async *batches() {
      const options = { dataset, imageSize: size, batchSize: BATCH, crops: 'center' as const, onUnreadable };
      for await (const { images } of sequentialBatches(options)) yield images;
    },
  };
}

async function openArray(path: string): Promise<ImageSource> {
  const file = await openNpz(path);
  const { shape, dtype } = await file.header('arr_0').finally(() => file.close());
  const [count, height, width, channels] = shape;
  if (shape.length !== 4 || dtype !== 'u1' || height !== width || channels !== 3 || count === 0)
    throw new DataError(
      `${path}: arr_0 is ${dtype} [${shape}]; it must be uint8 images of shape (N, S, S, 3)`,
    );
  return {
    size: height,
    count,
    async *batches() {
      const npz = await openNpz(path);
      try {
        for await (const rows of npz.rows('arr_0', BATCH)) yield rows as Uint8Array;
      } finally {
        npz.close();
      }
    },
  };
}
