import { basename } from 'node:path';
import { fileChecksum } from '../files/bytes.js';
import type { Job } from '../job/job.js';
import type { Reporter } from '../job/reporter.js';
import { type FeatureExtractor, openFeatureExtractor } from './feature-extractor.js';
import { extractFeatures } from './features.js';
import { frechetDistance } from './metrics/frechet.js';
import { type InceptionScore, SPLIT_SIZE } from './metrics/inception-score.js';
import { NEIGHBOUR, precisionRecall } from './metrics/precision-recall.js';
import { openEnough, openReference } from './reference.js';

export interface EvaluateSamplesOptions {
  /** `.npz` with arr_0, or a folder of images. */
  samples: string;
  /** The same, or an `.npz` with the statistics mu, sigma, mu_s and sigma_s, with or without arr_0. */
  reference: string;
  /** A feature network. */
  features: string;
  /** Side of the images, where `samples` is a folder. */
  size?: number;
  /** Pixels that an image of a folder may have at most. */
  maxPixels?: number;
}

/** The generation metrics, and what defines them. */
export interface GenerationResult {
  fid: number;
  /** Absent where the reference has statistics of the pooled features alone. */
  sfid?: number;
  /** Of splits of the samples in their order, as the ADM evaluator has it. */
  inception_score: number;
  /** Absent where the reference has statistics alone. */
  precision?: number;
  recall?: number;
  samples: number;
  /** Images of the reference, which precision and recall compare with. */
  references?: number;
  image_size: number;
  /** Of what the reference's mean and covariance are. */
  reference_statistics: 'stored in the reference' | "of the reference's images";
  reference: string;
  /** Of a reference that is a file. */
  reference_sha256?: string;
  features: string;
  features_sha256: string;
  preprocessing: string;
  /** Images a split of the inception score has at the most. */
  inception_split: number;
  /** Whose distance is a feature's radius. */
  neighbour: number;
}

/** Splits of mixed samples differ in score by a few percent. */
const SORTED = 1.2;

/** Covariances of fewer images than features are singular, and their distance is mostly that lack. */
export function warnOfFew(what: string, count: number, features: number, reporter: Reporter): void {
  if (count <= features)
    reporter.warn(
      `${count} ${what} are too few for ${features} features: the Fréchet distance is far above that of many images; compare it only with others of as many, and take 50,000 for numbers to publish`,
    );
}

/** Splits of sorted samples have few classes each, and so a low score, whatever the images are. */
export function warnOfOrder(
  { inOrder, dealt }: Pick<InceptionScore, 'inOrder' | 'dealt'>,
  reporter: Pick<Reporter, 'warn'>,
): void {
  if (dealt > SORTED * inOrder)
    reporter.warn(
      `the samples are sorted by class: the inception score is ${inOrder.toFixed(1)} of splits of ${SPLIT_SIZE} in their order, but ${dealt.toFixed(1)} of splits drawn at random; published samples have the classes in turn (0, 1, …, 0, 1, …), as \`alitok sample\` writes them`,
    );
}

/** What every result says of its feature network. */
export function featuresOf(extractor: FeatureExtractor, path: string) {
  return {
    features: `${extractor.name}, ${basename(path)}`,
    features_sha256: extractor.checksum,
    preprocessing: extractor.preprocessing,
  };
}

/**
 * Fréchet distances, inception score, precision and recall of samples against a reference. Throws DataError if images
 * are missing, too few or of another size, CheckpointError for the feature network's file. Several processes share the
 * images; rank 0 gives the result, the same as that of one process, and the others give nothing.
 */
export async function evaluateSamples(
  options: EvaluateSamplesOptions,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<GenerationResult | undefined> {
  const { reporter } = job;
  const source = await openEnough(options.samples, options, job);
  const extractor = await openFeatureExtractor(options.features);
  try {
    const { statistics, images } = await openReference(
      options.reference,
      { size: source.size, maxPixels: options.maxPixels },
      extractor,
      job,
    );
    const wanted = { gaussians: true, inceptionScore: true, rows: images !== undefined };
    const samples = await extractFeatures(source, extractor, wanted, job, 'samples');
    const ofImages = { gaussians: statistics === undefined, rows: true };
    const references = images && (await extractFeatures(images, extractor, ofImages, job, 'reference'));
    if (!samples) return undefined;
    warnOfFew('samples', samples.count, extractor.dimensions.pool, reporter);
    if (!statistics)
      warnOfFew('images in the reference', references!.count, extractor.dimensions.pool, reporter);
    const isFile = options.reference.endsWith('.npz');
    const reference_sha256 = isFile ? await fileChecksum(options.reference) : undefined;
    const own = samples.gaussians();
    const score = samples.inceptionScore();
    warnOfOrder(score, reporter);
    const { pool, spatial } = statistics ?? references!.gaussians();
    reporter.info('Fréchet distances');
    const fid = frechetDistance(pool, own.pool);
    const sfid = spatial && frechetDistance(spatial, own.spatial);
    if (references)
      reporter.info(`precision and recall of ${samples.count} and ${references.count} features`);
    return {
      fid,
      sfid,
      inception_score: score.inOrder,
      ...(references && (await precisionRecall(references.rows, samples.rows, extractor.dimensions.pool))),
      samples: samples.count,
      references: references?.count,
      image_size: source.size,
      reference_statistics: statistics ? 'stored in the reference' : "of the reference's images",
      reference: basename(options.reference),
      reference_sha256,
      ...featuresOf(extractor, options.features),
      inception_split: SPLIT_SIZE,
      neighbour: NEIGHBOUR,
    };
  } finally {
    extractor.dispose();
  }
}
