import { availableParallelism, totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { LibtorchBackend } from './backend.js';
import { loadNative } from './bridge.js';
import { registerKernels } from './kernels/index.js';

/**
 * How long PyTorch's threads (GNU OpenMP) stay awake between two operations, in rounds: some 50 µs. Its own value is far
 * longer, and takes the processor from whatever else runs.
 */
const SPINS = '20000';

/** The share of the machine's memory that tensors may keep for those to come. */
const KEPT_MEMORY = 1 / 4;

/**
 * Starts the libtorch engine on `device`, such as `cpu` or `cuda:0`; `threads` defaults to all processors.
 * Returns the library and its version. Throws EngineError where it is not built or does not load.
 */
export function startLibtorch({ threads = availableParallelism(), device = 'cpu' } = {}): string {
  process.env.GOMP_SPINCOUNT ??= SPINS;
  const native = loadNative();
  native.setThreads(threads);
  if (!tf.findBackendFactory('libtorch')) {
    registerKernels();
    tf.registerBackend('libtorch', () => new LibtorchBackend(native, device), 4);
    const memory = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
    native.call(native.find('alitok::keep_memory', '')!, Math.floor(memory * KEPT_MEMORY));
  }
  return `PyTorch ${native.version} on ${device}`;
}
