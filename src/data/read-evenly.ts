import { type ImageSet, subset } from '../data/image-set.js';
import { type LoaderOptions, sequentialBatches } from '../data/loader.js';

/**
 * Up to `count` images spread evenly over a data set, centre-cropped: uint8 (n, S, S, 3), and their classes.
 * `hears` is told of those that are passed over or enlarged; more than 1 % that cannot be read is a DataError.
 */
export async function readEvenly(
  dataset: ImageSet,
  imageSize: number,
  count: number,
  hears: Pick<LoaderOptions, 'onUnreadable' | 'onSmall'> = {},
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
    ...hears,
  })) {
    images.push(batch.images);
    classes.push(...batch.classes);
  }
  return { images: new Uint8Array(Buffer.concat(images)), classes: Int32Array.from(classes) };
}
