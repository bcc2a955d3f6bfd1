import { refuseForeign } from '../files/mark.js';
import { type NpzArray, writeNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { featuresOf, warnOfFew } from './evaluate-samples.js';
import { openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures } from './features.js';
import { type ImageSource, openImages } from './image-batches.js';
import type { Gaussian } from './metrics/statistics.js';

export interface ComputeStatisticsOptions {
  /** `.npz` with arr_0, or a folder of images. */
  images: string;
  /** Side of the images, where `images` is a folder. */
  size?: number;
  /** Of a folder, only the images that this file names. */
  list?: string;
  /** Pixels that an image of a folder may have at most. */
  maxPixels?: number;
  /** A feature network. */
  features: string;
  /** So many of the images, spread evenly over them, are kept beside the statistics, for precision and recall. */
  keep: number;
  /** The `.npz` that is written. */
  out: string;
}

/** What defines the statistics. */
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

/** `keep` of `count` images, spread evenly, in their order. */
async function* spread(source: ImageSource, count: number, keep: number): AsyncGenerator<Uint8Array> {
  const bytes = source.size ** 2 * 3;
  let [index, kept] = [0, 0];
  for await (const images of source.batches())
    for (let at = 0; at < images.length; at += bytes, index++) {
      if (kept === keep || index < Math.floor((kept * count) / keep)) continue;
      kept++;
      yield images.subarray(at, at + bytes);
    }
}

/**
 * Writes the mean and covariance of images' features as ADM's reference batches have them: `mu`, `sigma`, `mu_s`,
 * `sigma_s` in float64, and `arr_0` where images are kept. Throws DataError for the images, CheckpointError for the
 * feature network's file, OutputError where the file cannot be written. Several processes share the images; rank 0
 * writes, and the others give nothing.
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
    const features = await extractFeatures(source, extractor, { gaussians: true }, job, 'images');
    if (!features) return undefined;
    warnOfFew('images', features.count, extractor.dimensions.pool, reporter);
    const { pool, spatial } = features.gaussians();
    const arrays = [...arraysOf(pool, ''), ...arraysOf(spatial, '_s')];
    const kept = Math.min(options.keep, features.count);
    const shape = [kept, source.size, source.size, 3];
    // The folder is read once more, and said its warnings.
    const again = await openImages(images, { size, list, maxPixels });
    if (kept > 0)
      arrays.push({ name: 'arr_0', dtype: 'u1', shape, data: spread(again, features.count, kept) });
    await writeNpz(out, arrays);
    return {
      images: features.count,
      kept,
      image_size: source.size,
      ...featuresOf(extractor, options.features),
    };
  } finally {
    extractor.dispose();
  }
}
