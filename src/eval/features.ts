import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import { ALONE } from '../engine/distributed/group.js';
import type { Job } from '../job/job.js';
import { turn } from '../job/turn.js';
import type { FeatureExtractor, FeatureRows } from './feature-extractor.js';
import type { ImageSource } from './image-batches.js';
import { InceptionScore } from './metrics/inception-score.js';
import { FeatureStatistics, type Gaussian } from './metrics/statistics.js';

/** The Gaussians of both kinds of features. */
export interface Gaussians {
  pool: Gaussian;
  spatial: Gaussian;
}

/** What an evaluation compares. Members that were not asked for cannot be asked for later. */
export interface ImageFeatures {
  count: number;
  gaussians(): Gaussians;
  inceptionScore(): Pick<InceptionScore, 'inOrder' | 'dealt'>;
  /** (N, D), for precision and recall. */
  rows: Float32Array;
}

const NO_FEATURES: FeatureRows = {
  pool: new Float32Array(),
  spatial: new Float32Array(),
  logits: new Float32Array(),
};

/** What is to be gathered of the images: all of it, or what is needed. */
export interface Wanted {
  gaussians?: boolean;
  inceptionScore?: boolean;
  rows?: boolean;
}

/**
 * Runs a feature network over images, in one pass. Only `rows` takes memory for each image. Processes of a group take
 * batches in turn; rank 0 gathers their features in the order that one process has, and the others get nothing.
 */
export async function extractFeatures(
  source: ImageSource,
  extractor: FeatureExtractor,
  wanted: Wanted,
  { reporter, group = ALONE }: Pick<Job, 'reporter' | 'group'>,
  label: string,
): Promise<ImageFeatures | undefined> {
  const { pool: d, spatial: ds, logits: classes } = extractor.dimensions;
  const [pool, spatial] = [new FeatureStatistics(d), new FeatureStatistics(ds)];
  const score = new InceptionScore(classes, source.count);
  const gathers = group.rank === 0;
  const rows = new Float32Array(wanted.rows && gathers ? source.count * d : 0);
  const progress = reporter.progress({ label, total: source.count, unit: 'images' });
  let done = 0;
  try {
    for await (const images of source.batches(group)) {
      const features = images.length > 0 ? extractor.extract(images, source.size) : NO_FEATURES;
      const sent = {
        pool: features.pool,
        spatial: wanted.gaussians ? features.spatial : NO_FEATURES.spatial,
        logits: wanted.inceptionScore ? features.logits : NO_FEATURES.logits,
      };
      for (const part of await gatherArrays(group, sent)) {
        if (gathers && part.pool.length > 0) {
          if (wanted.gaussians) {
            pool.add(part.pool);
            spatial.add(part.spatial);
          }
          if (wanted.inceptionScore) score.add(part.logits);
          if (wanted.rows) rows.set(part.pool, done * d);
        }
        done += part.pool.length / d;
      }
      progress.update(done);
      await turn();
    }
  } finally {
    progress.stop();
  }
  if (!gathers) return undefined;
  return {
    count: done,
    gaussians: () => ({ pool: pool.gaussian, spatial: spatial.gaussian }),
    inceptionScore: () => score,
    rows: rows.subarray(0, done * d),
  };
}
