import * as tf from '@tensorflow/tfjs';
import { loadPackage } from './tensorflow/binding.js';
import { registerKernels } from './tensorflow/kernels/index.js';

/**
 * Starts the tensorflow engine: tfjs-node's backend, with our kernels. Returns a description: the library and its version.
 * Throws EngineError if it is not built or does not load.
 */
export function startTensorFlow(): string {
  const { name, version, binding, NodeJSKernelBackend } = loadPackage();
  if (!tf.findBackendFactory('tensorflow')) {
    registerKernels();
    tf.registerBackend('tensorflow', () => new NodeJSKernelBackend(binding, name), 3);
  }
  return `TensorFlow ${binding.TF_Version} through ${name} ${version}`;
}
