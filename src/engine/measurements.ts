import * as tf from '@tensorflow/tfjs';
import { peakMemory, resetPeakMemory } from '../machine.js';
import type { LibtorchBackend } from './libtorch/backend.js';
import type { Binding } from './tensorflow/binding.js';

/** A kind of kernel that a device ran: how often, and for how long in total. */
export interface KernelUse {
  name: string;
  count: number;
  seconds: number;
}

const libtorch = (): LibtorchBackend | undefined =>
  tf.getBackend() === 'libtorch' ? (tf.backend() as LibtorchBackend) : undefined;

/** The calls that the host makes, which take its own share of a step's time. */
export interface Calls {
  /** Kernels that tfjs ran, of its own operations and of the vocabulary. */
  kernels: number;
  /** Operations that kernels had PyTorch or TensorFlow run; undefined for engines without such a library. */
  library?: number;
}

/** Has `each` called for every operation of the engine's library, until the function that it returns is called. */
function watchLibrary(each: () => void): (() => void) | undefined {
  const counted =
    <A extends unknown[], R>(call: (...args: A) => R) =>
    (...args: A): R => {
      each();
      return call(...args);
    };
  if (tf.getBackend() === 'libtorch') {
    const backend = tf.backend() as { native: LibtorchBackend['native'] } & tf.KernelBackend;
    const { native } = backend;
    backend.native = { ...native, call: counted(native.call) };
    return () => Object.assign(backend, { native });
  }
  if (tf.getBackend() === 'tensorflow') {
    const backend = tf.backend() as { binding: Binding } & tf.KernelBackend;
    const { binding } = backend;
    backend.binding = Object.create(binding, { executeOp: { value: counted(binding.executeOp) } });
    return () => Object.assign(backend, { binding });
  }
  return undefined;
}

/** Counts the calls that `run` makes. */
export async function countCalls(run: () => Promise<void>): Promise<Calls> {
  const engine = tf.engine();
  let [kernels, library] = [0, 0];
  const { runKernel } = engine;
  engine.runKernel = (...args: Parameters<typeof runKernel>) => {
    kernels += 1;
    return runKernel.apply(engine, args) as never;
  };
  const unwatch = watchLibrary(() => {
    library += 1;
  });
  try {
    await run();
  } finally {
    engine.runKernel = runKernel;
    unwatch?.();
  }
  return { kernels, ...(unwatch && { library }) };
}

/** The libtorch backend if it is on a CUDA device and its bridge has the operators of native/measurements.cc. */
function measurable(): LibtorchBackend | undefined {
  const backend = libtorch();
  return backend && backend.device !== 'cpu' && backend.has('alitok::memory_begin') ? backend : undefined;
}

/**
 * Profiles the kernels that the CUDA device runs during `run`, the slowest first; undefined on other devices and if PyTorch is
 * too old.
 */
export async function profileKernels(run: () => Promise<void>): Promise<KernelUse[] | undefined> {
  const backend = measurable();
  if (!backend) return undefined;
  backend.call('alitok::profile_begin', true);
  let report: number;
  try {
    await run();
  } finally {
    report = backend.call('alitok::profile_end', true) as number;
  }
  const text = new TextDecoder().decode(backend.native.read(report) as Uint8Array);
  backend.native.free(report);
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
 * Empties the allocator's cache and starts to measure peak memory in bytes: that of tensors on a CUDA device, elsewhere that of
 * this process. The function it returns gives the peak since then.
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
