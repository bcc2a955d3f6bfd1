import { splitImages } from '../data/images/split.js';
import { refuseForeign } from '../files/mark.js';
import { type NpzArray, writeNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { describeExtractor, openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures } from './features.js';
import { type ImageSource, openImages } from './image-batches.js';
import { warnOfFew } from './metrics/frechet.js';
import type { Gaussian } from './metrics/statistics.js';

export interface ComputeStatisticsOptions {
  /** An `.npz` with arr_0, or a folder of images. */
  images: string;
  /** Side of the images in pixels; needed where `images` is a folder. */
  size?: number;
  /** Of a folder, only the images that this file names. */
  list?: string;
  /** Maximum number of pixels of an image in a folder. */
  maxPixels?: number;
  /** The file or run of a feature network. */
  features: string;
  /** How many of the images, evenly spaced, to store with the statistics, for KID, precision and recall. */
  keep: number;
  /** The `.npz` to write. */
  out: string;
}

/** What was written, and what defines it. */
export interface StatisticsResult {
  images: number;
  kept: number;
  image_size: number;
  features: string;
  features_sha256: string;
  preprocessing: string;
}

function arraysOf({ mean, covariance }: Gaussian, suffix: '' | '_s'): NpzArray[] {
  const d = mean.length;
  return [
    { name: `mu${suffix}`, dtype: 'f8', shape: [d], data: mean },
    { name: `sigma${suffix}`, dtype: 'f8', shape: [d, d], data: covariance },
  ];
}

/** `keep` of `count` images, evenly spaced, in order. */
async function* spread(source: ImageSource, count: number, keep: number): AsyncGenerator<Uint8Array> {
  let [index, kept] = [0, 0];
  for await (const images of source.batches())
    for (const image of splitImages(images, source.size))
      if (kept < keep && index++ >= Math.floor((kept * count) / keep)) {
        kept++;
        yield image;
      }
}

/**
 * Writes the mean and covariance of images' features in the layout of ADM's reference batches: `mu`, `sigma`, `mu_s`,
 * `sigma_s` in float64, and `arr_0` if images are kept. Throws DataError for the images, CheckpointError for the feature
 * network's file, OutputError if the file cannot be written. Several processes share the images; rank 0 writes, and the
 * others return nothing.
 */
export async function computeStatistics(
  options: ComputeStatisticsOptions,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<StatisticsResult | undefined> {
  const { images, size, list, maxPixels, out } = options;
  const { reporter } = job;
  await refuseForeign(out);
  const source = await openImages(images, { size, list, maxPixels, job });
  const extractor = await openFeatureExtractor(options.features);
  try {
    const needs = new Set(['poolGaussian', 'spatialGaussian'] as const);
    const features = await extractFeatures(source, extractor, needs, job, 'images');
    if (!features) return undefined;
    warnOfFew('images', features.count, extractor.dimensions.pool, reporter);
    const arrays = [
      ...arraysOf(features.gaussian('pool'), ''),
      ...arraysOf(features.gaussian('spatial'), '_s'),
    ];
    const kept = Math.min(options.keep, features.count);
    const shape = [kept, source.size, source.size, 3];
    // The images are read a second time, without a job: their warnings have been shown.
    const again = await openImages(images, { size, list, maxPixels });
    if (kept > 0)
      arrays.push({ name: 'arr_0', dtype: 'u1', shape, data: spread(again, features.count, kept) });
    await writeNpz(out, arrays);
    return {
      images: features.count,
      kept,
      image_size: source.size,
      ...describeExtractor(extractor, options.features),
    };
  } finally {
    extractor.dispose();
  }
}
