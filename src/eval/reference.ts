import { DataError } from '../errors.js';
import { type Npz, openNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { type ImageSource, openImages } from './image-batches.js';
import type { FeatureExtractor } from './metrics/metric.js';
import { MIN_FEATURES } from './metrics/precision-recall.js';
import type { Gaussian } from './metrics/statistics.js';

/** What samples are compared with. */
export interface Reference {
  /** Stored statistics, used instead of those of the images; pytorch-fid's files have none of the spatial features. */
  statistics?: { pool: Gaussian; spatial?: Gaussian };
  images?: ImageSource;
}

/** Opens the images at `path`. Throws DataError if they are missing or too few for precision and recall. */
export async function openEnough(
  path: string,
  { size, maxPixels }: { size?: number; maxPixels?: number },
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<ImageSource> {
  const source = await openImages(path, { size, maxPixels, job });
  if (source.count < MIN_FEATURES)
    throw new DataError(`${path} has ${source.count} images; at least ${MIN_FEATURES} are needed`);
  return source;
}

/** Reads mean and covariance under the names of ADM's reference batches. Throws DataError. */
async function readGaussian(file: Npz, suffix: '' | '_s', d: number): Promise<Gaussian> {
  const [mean, covariance] = [
    await file.readFloat64(`mu${suffix}`),
    await file.readFloat64(`sigma${suffix}`),
  ];
  if (mean.shape.join() !== `${d}` || covariance.shape.join() !== `${d},${d}`)
    throw new DataError(
      `${file.path}: mu${suffix} [${mean.shape}] and sigma${suffix} [${covariance.shape}] do not fit the feature network, which has ${d} features; use the network that the statistics were made with`,
    );
  if (![mean, covariance].every(({ data }) => data.every(Number.isFinite)))
    throw new DataError(
      `${file.path}: mu${suffix} or sigma${suffix} has numbers that are not finite; make the file again`,
    );
  return { mean: mean.data, covariance: covariance.data };
}

/**
 * Opens the images of a reference, its stored statistics, or both: in ADM's reference batches, the statistics are of the
 * whole data set and `arr_0` is a part of it. Throws DataError.
 */
export async function openReference(
  path: string,
  { size, maxPixels }: { size: number; maxPixels?: number },
  { dimensions }: FeatureExtractor,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<Reference> {
  const images = (own: number | undefined) => openEnough(path, { size: own, maxPixels }, job);
  if (!path.endsWith('.npz')) return { images: await images(size) };
  const file = await openNpz(path);
  try {
    if (!file.has('mu')) return { images: await images(undefined) };
    return {
      statistics: {
        pool: await readGaussian(file, '', dimensions.pool),
        spatial: file.has('mu_s') ? await readGaussian(file, '_s', dimensions.spatial) : undefined,
      },
      images: file.has('arr_0') ? await images(undefined) : undefined,
    };
  } finally {
    file.close();
  }
}
