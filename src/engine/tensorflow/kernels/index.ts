import { registerActivation } from './activation.js';

/** Registers all our kernels for the tensorflow engine. */
export function registerKernels(): void {
  registerActivation();
}
