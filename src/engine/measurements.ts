import * as tf from '@tensorflow/tfjs';
import { peakMemory, resetPeakMemory } from '../machine.js';
import type { LibtorchBackend } from './libtorch/backend.js';

/** A kind of kernel that a device ran: how often, and how long in all. */
export interface KernelUse {
  name: string;
  count: number;
  seconds: number;
}

const libtorch = (): LibtorchBackend | undefined =>
  tf.getBackend() === 'libtorch' ? (tf.backend() as LibtorchBackend) : undefined;

/** What the host asked for: what its own time for a step goes into. */
export interface Calls {
  /** Kernels that tfjs ran, each an operation of the models' or of the vocabulary. */
  kernels: number;
  /** Calls of PyTorch's operators and of ours, through the bridge; undefined for other engines than libtorch. */
  bridge?: number;
}

/** Counts what `run` asks of the engine. */
export async function countCalls(run: () => Promise<void>): Promise<Calls> {
  const engine = tf.engine();
  const backend = libtorch() as { native: LibtorchBackend['native'] } | undefined;
  const native = backend?.native;
  const calls: Calls = { kernels: 0, ...(backend && { bridge: 0 }) };
  const { runKernel } = engine;
  engine.runKernel = (...args: Parameters<typeof runKernel>) => {
    calls.kernels += 1;
    return runKernel.apply(engine, args) as never;
  };
  if (backend && native) {
    const call: typeof native.call = (...args) => {
      calls.bridge! += 1;
      return native.call(...args);
    };
    backend.native = { ...native, call };
  }
  try {
    await run();
  } finally {
    engine.runKernel = runKernel;
    if (backend && native) backend.native = native;
  }
  return calls;
}

/** The engine where it is on a CUDA device and its bridge has the operators of native/measurements.cc. */
function measurable(): LibtorchBackend | undefined {
  const backend = libtorch();
  return backend && backend.device !== 'cpu' && backend.has('alitok::memory_begin') ? backend : undefined;
}

/**
 * Runs `run` and tells what kernels the CUDA device ran meanwhile, those that took longest first; undefined on other devices,
 * and where the PyTorch is too old to tell.
 */
export async function profileKernels(run: () => Promise<void>): Promise<KernelUse[] | undefined> {
  const backend = measurable();
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

/** What is in use now, in bytes: memory of this process, and tensors by their number and size. */
export function memoryInUse(): { process: number; tensors: number; bytes: number } {
  const { numTensors, numBytes } = tf.memory();
  return { process: process.memoryUsage.rss(), tensors: numTensors, bytes: numBytes };
}

/**
 * Gives back what is kept for tensors to come, and begins to look for the most memory that is taken, in bytes: of a CUDA
 * device by tensors, elsewhere by this process. Calling what it gives tells the most since then.
 */
export function watchMemory(): () => number {
  const device = measurable();
  if (device) {
    device.call('alitok::memory_begin', device.device);
    return () => (device.call('alitok::memory_peak', device.device) as [number, number])[0];
  }
  const backend = libtorch();
  if (backend?.device === 'cpu') backend.call('alitok::release_memory');
  resetPeakMemory();
  return peakMemory;
}
