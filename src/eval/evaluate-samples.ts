import { basename } from 'node:path';
import { DataError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import type { Job } from '../train/job.js';
import { type FeatureExtractor, openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures, type ImageFeatures } from './features.js';
import { frechetDistance } from './frechet.js';
import { openImages } from './image-batches.js';
import { inceptionScore } from './inception-score.js';
import { precisionRecall } from './precision-recall.js';
import type { Gaussian } from './statistics.js';

export interface EvaluateSamplesOptions {
  /** `.npz` with arr_0, or a folder of images. */
  samples: string;
  /** The same, or an `.npz` with only the statistics mu, sigma, mu_s and sigma_s. */
  reference: string;
  /** A feature network. */
  features: string;
  /** Side of the images, where `samples` is a folder. */
  size?: number;
}

/** The generation metrics (spec: Evaluation), and what defines them. */
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

type Reference = Pick<ImageFeatures, 'pool' | 'spatial'> & Partial<ImageFeatures>;

/** The Gaussians in a statistics file of the ADM evaluator; undefined if it holds none. Throws DataError. */
async function readStatistics(
  path: string,
  { dimensions }: FeatureExtractor,
): Promise<Reference | undefined> {
  const file = await openNpz(path);
  try {
    if (!file.has('mu') || !file.has('mu_s')) return undefined;
    const gaussian = async (suffix: string, d: number): Promise<Gaussian> => {
      const [mean, covariance] = await Promise.all([
        file.readFloat64(`mu${suffix}`),
        file.readFloat64(`sigma${suffix}`),
      ]);
      if (mean.data.length !== d || covariance.data.length !== d * d)
        throw new DataError(
          `${path}: mu${suffix} has ${mean.data.length} features, but the feature network has ${d}; use the network that made the statistics`,
        );
      return { mean: mean.data, covariance: covariance.data };
    };
    return { pool: await gaussian('', dimensions.pool), spatial: await gaussian('_s', dimensions.spatial) };
  } finally {
    await file.close();
  }
}

/** Fréchet distances, inception score, precision and recall of samples against a reference. */
export async function evaluateSamples(
  options: EvaluateSamplesOptions,
  { reporter }: Job,
): Promise<GenerationResult> {
  const source = await openImages(options.samples, options.size);
  const extractor = await openFeatureExtractor(options.features);
  try {
    const samples = await extractFeatures(source, extractor, reporter, 'samples');
    const stored = options.reference.endsWith('.npz')
      ? await readStatistics(options.reference, extractor)
      : undefined;
    const reference: Reference =
      stored ??
      (await extractFeatures(
        await openImages(options.reference, source.size),
        extractor,
        reporter,
        'reference',
      ));
    return {
      fid: frechetDistance(reference.pool, samples.pool),
      sfid: frechetDistance(reference.spatial, samples.spatial),
      inception_score: inceptionScore(samples.logits, extractor.dimensions.logits),
      ...(reference.rows && precisionRecall(reference.rows, samples.rows, extractor.dimensions.pool)),
      samples: samples.count,
      references: reference.count,
      features: `${extractor.name}, ${basename(options.features)}`,
      features_sha256: extractor.checksum,
    };
  } finally {
    extractor.dispose();
  }
}
