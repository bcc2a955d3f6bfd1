import type { Job } from '../job/job.js';
import { runRounds } from '../job/rounds.js';
import type { ImageSource } from './image-batches.js';
import type { FeatureExtractor, FeatureRows, FeatureSet, Need } from './metrics/metric.js';
import { FeatureStatistics } from './metrics/statistics.js';

const NONE = new Float32Array();

/**
 * Runs a feature network over images, in one pass. Only `poolRows` takes memory for each image. Processes of a group take
 * batches in turn; rank 0 gathers the features in the order of the images, and the others return nothing.
 * @param needs what is gathered; the rest of the set is empty
 * @param onFeatures called on rank 0 with the features of each batch in order; kinds that are not needed have no rows
 */
export async function extractFeatures(
  source: ImageSource,
  extractor: FeatureExtractor,
  needs: ReadonlySet<Need>,
  job: Pick<Job, 'reporter' | 'group'>,
  label: string,
  onFeatures?: (features: FeatureRows) => void,
): Promise<FeatureSet | undefined> {
  const { pool: d, spatial: ds } = extractor.dimensions;
  const statistics = { pool: new FeatureStatistics(d), spatial: new FeatureStatistics(ds) };
  const isFirst = (job.group?.rank ?? 0) === 0;
  const rows = new Float32Array(needs.has('poolRows') && isFirst ? source.count * d : 0);
  let gathered = 0;
  const count = await runRounds(
    source.batches(job.group),
    {
      progress: { label, total: source.count, unit: 'images' },
      compute(images) {
        const features = extractor.extract(images, source.size);
        return {
          pool: features.pool,
          spatial: needs.has('spatialGaussian') ? features.spatial : NONE,
          logits: needs.has('logits') ? features.logits : NONE,
        };
      },
      count: ({ pool }) => pool.length / d,
      take(features) {
        if (needs.has('poolGaussian')) statistics.pool.add(features.pool);
        if (needs.has('spatialGaussian')) statistics.spatial.add(features.spatial);
        if (needs.has('poolRows')) rows.set(features.pool, gathered);
        gathered += features.pool.length;
        onFeatures?.(features);
      },
    },
    job,
  );
  if (!isFirst) return undefined;
  return { count, gaussian: (of) => statistics[of].gaussian, poolRows: rows.subarray(0, count * d) };
}
