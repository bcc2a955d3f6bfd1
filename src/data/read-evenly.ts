import type { Dataset } from '../data/dataset.js';
import { type LoaderOptions, sequentialBatches } from '../data/loader.js';

/**
 * Up to `count` images spread evenly over a data set, centre-cropped: uint8 (n, S, S, 3), and their classes.
 * `onUnreadable` hears of those that are passed over; more than 1 % of them is a DataError.
 */
export async function readEvenly(
  dataset: Dataset,
  imageSize: number,
  count: number,
  onUnreadable?: LoaderOptions['onUnreadable'],
): Promise<{ images: Uint8Array; classes: Int32Array }> {
  const { entries } = dataset;
  const n = Math.min(count, entries.length);
  const chosen = Array.from({ length: n }, (_, i) => entries[Math.floor((i * entries.length) / n)]);
  const subset = { ...dataset, entries: chosen };
  const images: Uint8Array[] = [];
  const classes: number[] = [];
  for await (const batch of sequentialBatches({
    dataset: subset,
    imageSize,
    batchSize: 64,
    crops: 'center',
    onUnreadable,
  })) {
    images.push(batch.images);
    classes.push(...batch.classes);
  }
  return { images: new Uint8Array(Buffer.concat(images)), classes: Int32Array.from(classes) };
}
