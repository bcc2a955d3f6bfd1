import { availableParallelism } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { createBackend } from './wasm/backend.js';
import { registerKernels } from './wasm/kernels/index.js';

let started: number | undefined;

/**
 * Registers `wasm` as a tfjs backend with shared memory, our kernels and `threads` threads (default: all processors).
 * Once started, it does not change. Returns its number of threads. Throws EngineError if it is not built.
 */
export async function startWasm({ threads = availableParallelism() }: { threads?: number }): Promise<number> {
  if (started !== undefined) return started;
  const backend = await createBackend(threads);
  tf.removeBackend('wasm');
  tf.registerBackend('wasm', () => backend);
  registerKernels();
  started = threads;
  return started;
}
