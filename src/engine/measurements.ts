import * as tf from '@tensorflow/tfjs';
import { peakMemory, resetPeakMemory } from '../machine.js';
import type { LibtorchBackend } from './libtorch/backend.js';

/** A kind of kernel that a device ran: how often, and how long in all. */
export interface KernelUse {
  name: string;
  count: number;
  seconds: number;
}

/** The engine where it is libtorch on a CUDA device, with the operators of native/measurements.cc. */
function cudaBackend(): LibtorchBackend | undefined {
  if (tf.getBackend() !== 'libtorch') return undefined;
  const backend = tf.backend() as LibtorchBackend;
  return backend.device !== 'cpu' && backend.has('alitok::memory_begin') ? backend : undefined;
}

/**
 * Runs `run` and tells what kernels the CUDA device ran meanwhile, those that took longest first; undefined on other devices,
 * and where the PyTorch is too old to tell.
 */
export async function profileKernels(run: () => Promise<void>): Promise<KernelUse[] | undefined> {
  const backend = cudaBackend();
  if (!backend) return undefined;
  backend.call('alitok::profile_begin', true);
  let noted: number;
  try {
    await run();
  } finally {
    noted = backend.call('alitok::profile_end', true) as number;
  }
  const text = new TextDecoder().decode(backend.native.read(noted) as Uint8Array);
  backend.native.free(noted);
  const lines = text.split('\n').filter((line) => line !== '');
  return lines
    .map((line) => line.split('\t'))
    .map(([name, count, ns]) => ({ name, count: Number(count), seconds: Number(ns) / 1e9 }))
    .sort((a, b) => b.seconds - a.seconds);
}

/**
 * Begins to look for the most memory that is taken, in bytes: of a CUDA device by tensors, elsewhere by this process.
 * Calling what it gives tells the most since then.
 */
export function watchMemory(): () => number {
  const backend = cudaBackend();
  if (!backend) {
    resetPeakMemory();
    return peakMemory;
  }
  backend.call('alitok::memory_begin', backend.device);
  return () => (backend.call('alitok::memory_peak', backend.device) as [number, number])[0];
}
