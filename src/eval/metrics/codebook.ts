import { CodebookUsage } from '../../models/tokenizer/codebook-usage.js';
import type { ReconstructionMetric } from './metric.js';

export interface CodebookValues {
  /** Share of the codebook that the images use. */
  codebook_usage: number;
  /** Entropy of the codes in bits. */
  codebook_entropy: number;
}

export const codebook: ReconstructionMetric<CodebookValues> = {
  name: 'codebook usage',
  start({ codebookSize }) {
    const usage = new CodebookUsage(codebookSize);
    return {
      measure: ({ codes }) => ({ codes }),
      add: ({ codes }: { codes: Int32Array }) => usage.add(codes),
      result: () => ({ codebook_usage: usage.used, codebook_entropy: usage.entropy }),
    };
  },
};
