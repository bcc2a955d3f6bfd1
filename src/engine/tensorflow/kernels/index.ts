import { registerActivation } from './activation.js';
import { registerAttention } from './attention.js';
import { registerDrawing } from './drawing.js';
import { registerDropout } from './dropout.js';
import { registerFrozen } from './frozen.js';
import { registerGeneratorStep } from './generator-step.js';
import { registerLinear } from './linear.js';
import { registerLookup } from './lookup.js';
import { registerNormalization } from './normalization.js';
import { registerOptimizer } from './optimizer.js';
import { registerTfjs } from './tfjs.js';

/** Registers all our kernels for the tensorflow engine. */
export function registerKernels(): void {
  registerTfjs();
  registerActivation();
  registerAttention();
  registerDrawing();
  registerDropout();
  registerFrozen();
  registerGeneratorStep();
  registerLinear();
  registerLookup();
  registerNormalization();
  registerOptimizer();
}
