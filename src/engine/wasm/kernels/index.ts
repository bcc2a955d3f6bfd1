import { registerConvolution } from './convolution.js';
import { registerElementwise } from './elementwise.js';
import { registerLayout } from './layout.js';
import { registerMatmul } from './matmul.js';
import { registerVocabulary } from './vocabulary.js';

/** Registers all of our kernels for the backend `wasm`. */
export function registerKernels(): void {
  registerMatmul();
  registerVocabulary();
  registerLayout();
  registerElementwise();
  registerConvolution();
}
