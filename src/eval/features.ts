import type { Reporter } from '../job/reporter.js';
import { turn } from '../job/turn.js';
import type { FeatureExtractor } from './feature-extractor.js';
import type { ImageSource } from './image-batches.js';
import { InceptionScore } from './inception-score.js';
import { FeatureStatistics, type Gaussian } from './statistics.js';

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

/** What is to be gathered of the images: all of it, or what is needed. */
export interface Wanted {
  gaussians?: boolean;
  inceptionScore?: boolean;
  rows?: boolean;
}

/** Runs a feature network over images, in one pass. Only `rows` takes memory for each image. */
export async function extractFeatures(
  source: ImageSource,
  extractor: FeatureExtractor,
  wanted: Wanted,
  reporter: Reporter,
  label: string,
): Promise<ImageFeatures> {
  const { pool: d, spatial: ds, logits: classes } = extractor.dimensions;
  const [pool, spatial] = [new FeatureStatistics(d), new FeatureStatistics(ds)];
  const score = new InceptionScore(classes, source.count);
  const rows = new Float32Array(wanted.rows ? source.count * d : 0);
  const progress = reporter.progress({ label, total: source.count, unit: 'images' });
  let done = 0;
  try {
    for await (const images of source.batches()) {
      const features = extractor.extract(images, source.size);
      if (wanted.gaussians) {
        pool.add(features.pool);
        spatial.add(features.spatial);
      }
      if (wanted.inceptionScore) score.add(features.logits);
      if (wanted.rows) rows.set(features.pool, done * d);
      done += features.pool.length / d;
      progress.update(done);
      await turn();
    }
  } finally {
    progress.stop();
  }
  return {
    count: done,
    gaussians: () => ({ pool: pool.gaussian, spatial: spatial.gaussian }),
    inceptionScore: () => score,
    rows: rows.subarray(0, done * d),
  };
}
