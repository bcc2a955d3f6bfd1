import { frechetDistance } from './frechet.js';
import type { GenerationMetric } from './metric.js';

export interface FidValues {
  /** Fréchet inception distance. */
  fid: number;
}

/** Fréchet distance of the pooled features (Heusel et al., 2017). */
export const fid: GenerationMetric<FidValues> = {
  name: 'FID',
  needs: { samples: ['poolGaussian'], reference: ['poolGaussian'] },
  start: () => ({
    result: (samples, reference) => ({
      fid: frechetDistance(reference.gaussian('pool'), samples.gaussian('pool')),
    }),
  }),
};
