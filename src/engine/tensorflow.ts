import * as tf from '@tensorflow/tfjs';
import { loadPackage } from './tensorflow/binding.js';
import { registerKernels } from './tensorflow/kernels/index.js';

/** Whether the kernel of `generatorStep` can do a step: rotary embeddings need pairs of channels. */
const takesStep = (_sequences: number, _widths: readonly number[], headWidth: number) => headWidth % 2 === 0;

/**
 * Starts the tensorflow engine: tfjs-node's backend, with our kernels. Returns a description: the library and its version.
 * Throws EngineError if it is not built or does not load.
 */
export function startTensorFlow(): string {
  const { name, version, binding, NodeJSKernelBackend } = loadPackage();
  if (!tf.findBackendFactory('tensorflow')) {
    registerKernels();
    const createBackend = () => Object.assign(new NodeJSKernelBackend(binding, name), { takesStep });
    tf.registerBackend('tensorflow', createBackend, 3);
  }
  return `TensorFlow ${binding.TF_Version} through ${name} ${version}`;
}
