import { frechetDistance } from './frechet.js';
import type { GenerationMetric } from './metric.js';

export interface SfidValues {
  /** FID of the spatial features; absent where the reference only has statistics of the pooled features. */
  sfid: number;
}

/** Fréchet distance of the spatial features (Nash et al., 2021). */
export const sfid: GenerationMetric<SfidValues> = {
  name: 'sFID',
  needs: { samples: ['spatialGaussian'], reference: ['spatialGaussian'] },
  start: () => ({
    result: (samples, reference) => ({
      sfid: frechetDistance(reference.gaussian('spatial'), samples.gaussian('spatial')),
    }),
  }),
};
