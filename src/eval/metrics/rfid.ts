import { frechetDistance, warnOfFew } from './frechet.js';
import type { ReconstructionMetric } from './metric.js';
import { FeatureStatistics } from './statistics.js';

export interface RfidValues {
  /** FID of the reconstructions against their originals; absent without a feature network. */
  rfid: number;
}

/** FID of reconstructions against their originals. */
export const rfid: ReconstructionMetric<RfidValues> = {
  name: 'rFID',
  needs: 'features',
  start({ extractor, imageSize, reporter }) {
    const { extract, dimensions } = extractor!;
    const originals = new FeatureStatistics(dimensions.pool);
    const reconstructions = new FeatureStatistics(dimensions.pool);
    return {
      measure: (batch) => ({
        originals: extract(batch.originals, imageSize).pool,
        reconstructions: extract(batch.reconstructions, imageSize).pool,
      }),
      add(measured: { originals: Float32Array; reconstructions: Float32Array }) {
        originals.add(measured.originals);
        reconstructions.add(measured.reconstructions);
      },
      result(images) {
        warnOfFew('images', images, dimensions.pool, reporter);
        return { rfid: frechetDistance(originals.gaussian, reconstructions.gaussian) };
      },
    };
  },
};
