import type { Reporter } from '../job/reporter.js';
import { turn } from '../job/turn.js';
import type { FeatureExtractor } from './feature-extractor.js';
import type { ImageSource } from './image-batches.js';
import { FeatureStatistics, type Gaussian } from './statistics.js';

/** What an evaluation compares: the Gaussians of both kinds of features, and the features themselves. */
export interface ImageFeatures {
  count: number;
  pool: Gaussian;
  spatial: Gaussian;
  /** (N, D), for precision and recall. */
  rows: Float32Array;
  /** (N, C), for the inception score. */
  logits: Float32Array;
}

/** Runs a feature network over images, in one pass. */
export async function extractFeatures(
  source: ImageSource,
  extractor: FeatureExtractor,
  reporter: Reporter,
  label: string,
): Promise<ImageFeatures> {
  const { pool: d, spatial: ds, logits: c } = extractor.dimensions;
  const [pool, spatial] = [new FeatureStatistics(d), new FeatureStatistics(ds)];
  const rows = new Float32Array(source.count * d);
  const logits = new Float32Array(source.count * c);
  const progress = reporter.progress({ label, total: source.count, unit: 'images' });
  let done = 0;
  try {
    for await (const images of source.batches()) {
      const features = extractor.extract(images, source.size);
      pool.add(features.pool);
      spatial.add(features.spatial);
      rows.set(features.pool, done * d);
      logits.set(features.logits, done * c);
      done += features.pool.length / d;
      progress.update(done);
      await turn();
    }
  } finally {
    progress.stop();
  }
  return {
    count: done,
    pool: pool.gaussian,
    spatial: spatial.gaussian,
    rows: rows.subarray(0, done * d),
    logits: logits.subarray(0, done * c),
  };
}
