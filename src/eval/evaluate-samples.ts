import { basename } from 'node:path';
import { fileChecksum } from '../files/bytes.js';
import type { Job } from '../job/job.js';
import { describeExtractor, openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures } from './features.js';
import { warnOfFew } from './metrics/frechet.js';
import { GENERATION_METRICS, type GenerationSettings, type GenerationValues } from './metrics/index.js';
import type { FeatureSet, Need } from './metrics/metric.js';
import { openEnough, openReference, type Reference } from './reference.js';

export interface EvaluateSamplesOptions {
  /** An `.npz` with arr_0, or a folder of images. */
  samples: string;
  /** The same, or an `.npz` with the statistics mu, sigma, mu_s and sigma_s, with or without arr_0. */
  reference: string;
  /** The file or run of a feature network. */
  features: string;
  /** Side of the images in pixels; needed where `samples` is a folder. */
  size?: number;
  /** Maximum number of pixels of an image in a folder. */
  maxPixels?: number;
}

/** The generation metrics, and what defines them. */
export interface GenerationResult extends GenerationValues, GenerationSettings {
  samples: number;
  /** Number of the reference's images, which KID, precision and recall compare with. */
  references?: number;
  image_size: number;
  /** Where the reference's mean and covariance are from. */
  reference_statistics: 'stored in the reference' | "of the reference's images";
  reference: string;
  /** Given where the reference is a file. */
  reference_sha256?: string;
  features: string;
  features_sha256: string;
  preprocessing: string;
}

/** What a reference can give to metrics. */
function given({ statistics, images }: Reference): ReadonlySet<Need> {
  const spatial = statistics ? statistics.spatial : images;
  return new Set<Need>([
    'poolGaussian',
    ...(spatial ? (['spatialGaussian'] as const) : []),
    ...(images ? (['poolRows'] as const) : []),
  ]);
}

/**
 * The generation metrics of samples against a reference, as far as the reference has what they need. Throws DataError if
 * images are missing, too few or of another size, CheckpointError for the feature network's file. Several processes share
 * the images; rank 0 returns the result, which is the same as that of one process, and the others return nothing.
 */
export async function evaluateSamples(
  options: EvaluateSamplesOptions,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<GenerationResult | undefined> {
  const { reporter } = job;
  const source = await openEnough(options.samples, options, job);
  const extractor = await openFeatureExtractor(options.features);
  try {
    const { dimensions } = extractor;
    const { size } = source;
    const found = await openReference(
      options.reference,
      { size, maxPixels: options.maxPixels },
      extractor,
      job,
    );
    const { statistics, images } = found;
    const available = given(found);
    const metrics = GENERATION_METRICS.filter(({ needs }) =>
      needs.reference.every((need) => available.has(need)),
    ).map((metric) => ({ ...metric, ...metric.start({ samples: source.count, dimensions, reporter }) }));

    const ofSamples = new Set<Need>(metrics.flatMap(({ needs }) => needs.samples));
    const ofReference = new Set<Need>(metrics.flatMap(({ needs }) => needs.reference));
    if (statistics) for (const need of ['poolGaussian', 'spatialGaussian'] as const) ofReference.delete(need);
    const samples = await extractFeatures(source, extractor, ofSamples, job, 'samples', (features) => {
      for (const metric of metrics) metric.add?.(features);
    });
    const references = images && (await extractFeatures(images, extractor, ofReference, job, 'reference'));
    if (!samples) return undefined;
    warnOfFew('samples', samples.count, dimensions.pool, reporter);
    if (!statistics) warnOfFew('images in the reference', references!.count, dimensions.pool, reporter);

    const reference: FeatureSet = {
      count: references?.count ?? 0,
      gaussian: (of) => statistics?.[of] ?? references!.gaussian(of),
      poolRows: references?.poolRows ?? new Float32Array(),
    };
    const values = {};
    for (const metric of metrics) {
      reporter.info(`computing ${metric.name}`);
      Object.assign(values, await metric.result(samples, reference));
    }
    const isFile = options.reference.endsWith('.npz');
    return {
      ...(values as GenerationValues),
      samples: samples.count,
      references: references?.count,
      image_size: size,
      reference_statistics: statistics ? 'stored in the reference' : "of the reference's images",
      reference: basename(options.reference),
      reference_sha256: isFile ? await fileChecksum(options.reference) : undefined,
      ...describeExtractor(extractor, options.features),
      ...(Object.assign({}, ...GENERATION_METRICS.map(({ settings }) => settings)) as GenerationSettings),
    };
  } finally {
    extractor.dispose();
  }
}
