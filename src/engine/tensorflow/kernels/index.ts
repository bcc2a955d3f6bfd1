import { registerActivation } from './activation.js';
import { registerTfjs } from './tfjs.js';

/** Registers all our kernels for the tensorflow engine. */
export function registerKernels(): void {
  registerTfjs();
  registerActivation();
}
