import { registerConvolution } from './convolution.js';
import { registerElementwise } from './elementwise.js';
import { registerHost } from './host.js';
import { registerLayout } from './layout.js';
import { registerMatmul } from './matmul.js';
import { registerReductions } from './reductions.js';
import { registerVocabulary } from './vocabulary.js';

/** Registers every kernel of the libtorch engine with tfjs. */
export function registerKernels(): void {
  registerElementwise();
  registerReductions();
  registerLayout();
  registerMatmul();
  registerConvolution();
  registerVocabulary();
  registerHost();
}
