import { registerHost } from '../../host/kernels.js';
import { registerAttention } from './attention.js';
import { registerConvolution } from './convolution.js';
import { registerDrawing } from './drawing.js';
import { registerDropout } from './dropout.js';
import { registerElementwise } from './elementwise.js';
import { registerGeneratorStep } from './generator-step.js';
import { registerLayout } from './layout.js';
import { registerLinear } from './linear.js';
import { registerLookup } from './lookup.js';
import { registerMatmul } from './matmul.js';
import { registerNormalization } from './normalization.js';
import { registerOptimizer } from './optimizer.js';
import { registerReductions } from './reductions.js';

/** Registers every kernel of the libtorch engine with tfjs. */
export function registerKernels(): void {
  registerElementwise();
  registerReductions();
  registerLayout();
  registerMatmul();
  registerConvolution();
  // The vocabulary (src/engine/ops)
  registerLinear();
  registerNormalization();
  registerAttention();
  registerGeneratorStep();
  registerDropout();
  registerLookup();
  registerDrawing();
  registerOptimizer();
  registerHost('libtorch');
}
