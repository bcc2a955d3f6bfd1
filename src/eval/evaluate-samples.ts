import { basename } from 'node:path';
import { DataError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import { type Reporter, warnOfSkipped } from '../job/reporter.js';
import { type FeatureExtractor, openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures } from './features.js';
import { frechetDistance } from './frechet.js';
import { type ImageSource, openImages } from './image-batches.js';
import { inceptionScore } from './inception-score.js';
import { MIN_FEATURES, precisionRecall } from './precision-recall.js';
import type { Gaussian } from './statistics.js';

export interface EvaluateSamplesOptions {
  /** `.npz` with arr_0, or a folder of images. */
  samples: string;
  /** The same, or an `.npz` with the statistics mu, sigma, mu_s and sigma_s, with or without arr_0. */
  reference: string;
  /** A feature network. */
  features: string;
  /** Side of the images, where `samples` is a folder. */
  size?: number;
}

/** The generation metrics, and what defines them. */
export interface GenerationResult {
  fid: number;
  sfid: number;
  inception_score: number;
  /** Absent where the reference has statistics alone. */
  precision?: number;
  recall?: number;
  samples: number;
  references?: number;
  features: string;
  features_sha256: string;
}

/** The images at `path`. Throws DataError if they are missing or too few. */
async function openEnough(path: string, size: number | undefined, reporter: Reporter): Promise<ImageSource> {
  const source = await openImages(path, size, warnOfSkipped(reporter));
  if (source.count < MIN_FEATURES)
    throw new DataError(`${path} has ${source.count} images; at least ${MIN_FEATURES} are needed`);
  return source;
}

type Gaussians = Record<'pool' | 'spatial', Gaussian>;

interface Reference {
  /** Stored statistics, which stand before those of the images. */
  statistics?: Gaussians;
  images?: ImageSource;
}

/** The reference's images, its stored statistics, or both. Throws DataError. */
async function openReference(
  path: string,
  size: number,
  { dimensions }: FeatureExtractor,
  reporter: Reporter,
): Promise<Reference> {
  if (!path.endsWith('.npz')) return { images: await openEnough(path, size, reporter) };
  const file = await openNpz(path);
  try {
    if (!file.has('mu') || !file.has('mu_s')) return { images: await openEnough(path, size, reporter) };
    const gaussian = async (suffix: string, d: number): Promise<Gaussian> => {
      const { data: mean } = await file.readFloat64(`mu${suffix}`);
      const { data: covariance } = await file.readFloat64(`sigma${suffix}`);
      if (mean.length !== d || covariance.length !== d * d)
        throw new DataError(
          `${path}: mu${suffix} and sigma${suffix} are of ${mean.length} features, but the feature network has ${d}; use the network that made the statistics`,
        );
      return { mean, covariance };
    };
    return {
      statistics: {
        pool: await gaussian('', dimensions.pool),
        spatial: await gaussian('_s', dimensions.spatial),
      },
      images: file.has('arr_0') ? await openEnough(path, size, reporter) : undefined,
    };
  } finally {
    file.close();
  }
}

/**
 * Fréchet distances, inception score, precision and recall of samples against a reference. Throws DataError if images
 * are missing, too few or of another size, CheckpointError for the feature network's file.
 */
export async function evaluateSamples(
  options: EvaluateSamplesOptions,
  { reporter }: Pick<Job, 'reporter'>,
): Promise<GenerationResult> {
  const source = await openEnough(options.samples, options.size, reporter);
  const extractor = await openFeatureExtractor(options.features);
  try {
    const reference = await openReference(options.reference, source.size, extractor, reporter);
    const samples = await extractFeatures(source, extractor, reporter, 'samples');
    const references =
      reference.images && (await extractFeatures(reference.images, extractor, reporter, 'reference'));
    const { pool, spatial } = (reference.statistics ?? references) as Gaussians;
    return {
      fid: frechetDistance(pool, samples.pool),
      sfid: frechetDistance(spatial, samples.spatial),
      inception_score: inceptionScore(samples.logits, extractor.dimensions.logits),
      ...(references && (await precisionRecall(references.rows, samples.rows, extractor.dimensions.pool))),
      samples: samples.count,
      references: references?.count,
      features: `${extractor.name}, ${basename(options.features)}`,
      features_sha256: extractor.checksum,
    };
  } finally {
    extractor.dispose();
  }
}
