import * as tf from '@tensorflow/tfjs';
import {
  type Calls,
  countCalls,
  type KernelUse,
  profileKernels,
  watchMemory,
} from '../engine/measurements.js';
import { linear, packedLinear, packWeight } from '../engine/ops/index.js';
import type { EngineOptions } from '../engine/options.js';
import { turn } from '../job/job.js';
import type { Case } from './cases.js';

/** The measured limits of this machine with the engine that is open. */
export interface Limits {
  /** Bytes per second that a matrix product with few rows reads. */
  bandwidth: number;
  /** Floating-point operations per second of a large matrix product, in the chosen precision. */
  matrixRate: number;
}

export interface Measurement {
  description: string;
  /** Seconds of one run: the median of all repeats, and the fastest. */
  seconds: number;
  fastest: number;
  /** Processor seconds of one run, over all threads; the median. */
  processor_seconds: number;
  images_per_second: number;
  /** Fraction of the measured limit: of bandwidth for sampling with few rows, of the matrix rate for everything else. */
  share_of_limit: number;
  limited_by: 'bandwidth' | 'matrix rate';
  /** Peak memory in bytes: of tensors on a CUDA device, else of this process. */
  peak_memory: number;
  /** Decoding steps of one run; 1 if there are none. */
  steps: number;
  /** Per decoding step, or per run if there are none: tfjs kernels, and operations of PyTorch or TensorFlow. */
  tfjs_kernels: number;
  library_calls?: number;
  /** Kernels that a CUDA device ran in one run and in one decoding step, and their total time in seconds. */
  kernels?: number;
  kernels_per_step?: number;
  kernel_seconds?: number;
  /** The kernels that took longest, including copies and fills. */
  longest_kernels?: KernelUse[];
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Waits until the device has finished all work so far: it works in order, so reading a new tensor comes last. */
async function settled(): Promise<void> {
  const last = tf.fill([1], 0);
  await last.data();
  last.dispose();
}

/** Seconds of one run, until the device has finished: wall-clock time and processor time. */
export async function time(run: () => Promise<void>): Promise<{ wall: number; cpu: number }> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  await run();
  await settled();
  const { user, system } = process.cpuUsage(used);
  return { wall: (performance.now() - start) / 1000, cpu: (user + system) / 1e6 };
}

/** The times of `repeats` runs after a warm-up. */
async function times(run: () => Promise<void>, repeats: number): Promise<{ wall: number[]; cpu: number[] }> {
  await time(run);
  const [wall, cpu]: number[][] = [[], []];
  for (let i = 0; i < repeats; i++) {
    await turn(); // so that a signal is handled
    const taken = await time(run);
    wall.push(taken.wall);
    cpu.push(taken.cpu);
  }
  return { wall, cpu };
}

/** In seconds; in shorter measurements, start and end count too much. */
const LONG_ENOUGH = 0.01;
const REPEATS = 8;

/** Seconds of the fastest `body`, from as many in a row as take long enough. */
async function best(body: () => tf.Tensor): Promise<number> {
  for (let count = 1; ; count *= 4) {
    const row = async () => {
      for (let i = 0; i < count; i++) tf.tidy(body).dispose();
    };
    const fastest = Math.min(...(await times(row, REPEATS)).wall);
    if (fastest >= LONG_ENOUGH) return fastest / count;
  }
}

/** Above this many operations per second, only a larger product keeps a device busy. */
const FAST_DEVICE = 1e12;
/** Sizes of matrix products: rows and columns of the result, and the inner dimension. */
const PRODUCTS = { small: { side: 1024, depth: 1024 }, large: { side: 4096, depth: 16384 } };

/** Operations per second of a matrix product. The large one is deep, so that writing its result takes little of the time. */
async function rateOf({ side, depth }: { side: number; depth: number }): Promise<number> {
  const matrix = tf.fill([side, depth], 1);
  const rate = (2 * side ** 2 * depth) / (await best(() => linear(matrix, matrix)));
  matrix.dispose();
  return rate;
}

/**
 * Measures the bandwidth by reading 512 MiB (256 MiB in bf16), far more than any cache holds, and the matrix rate by
 * multiplying matrices, both in the precision that the engine was opened with.
 */
export async function measureLimits(precision: EngineOptions['precision'] = 'float32'): Promise<Limits> {
  const [rows, n] = [32768, 4096];
  const row = tf.fill([1, n], 1);
  const weights = tf.fill([rows, n], 1);
  const packed = precision === 'bf16' ? packWeight(weights, 'bf16') : undefined;
  if (packed) weights.dispose();
  const reading = await best(() => (packed ? packedLinear(row, packed) : linear(row, weights)));
  tf.dispose(packed ? [row, packed.weight] : [row, weights]);
  const matrixRate = await rateOf(PRODUCTS.small);
  return {
    bandwidth: ((packed ? 2 : 4) * rows * n) / reading,
    matrixRate: matrixRate < FAST_DEVICE ? matrixRate : await rateOf(PRODUCTS.large),
  };
}

/** Most kernels that are listed. */
const NAMED = 12;
/** The profiler's names of copies and fills, which are not kernels. */
const TRANSFER = /^Mem(cpy|set)\b/;

function kernelCounts(used: KernelUse[] | undefined, steps: number): Partial<Measurement> {
  if (!used) return {};
  const kernels = used.filter(({ name }) => !TRANSFER.test(name)).reduce((sum, { count }) => sum + count, 0);
  const seconds = used.reduce((sum, kernel) => sum + kernel.seconds, 0);
  const perStep = steps > 1 && { kernels_per_step: kernels / steps };
  return { kernels, ...perStep, kernel_seconds: seconds, longest_kernels: used.slice(0, NAMED) };
}

/** Runs a case once to warm up and then `repeats` times; on a CUDA device once more, to count its kernels. */
export async function measure(what: Case, repeats: number, limits: Limits): Promise<Measurement> {
  const peak = watchMemory();
  let asked: Calls | undefined;
  const counted = async () => {
    asked = await countCalls(what.run); // of all runs the last one is kept; counting costs little compared with a call
  };
  const { wall, cpu } = await times(counted, repeats);
  const taken = peak();
  const used = await profileKernels(async () => {
    await what.run();
    await settled();
  });
  const middle = median(wall);
  const atBandwidth = (what.steps * what.bytesPerStep) / limits.bandwidth;
  const atRate = what.operations / limits.matrixRate;
  return {
    description: what.description,
    seconds: middle,
    fastest: Math.min(...wall),
    processor_seconds: median(cpu),
    images_per_second: what.images / middle,
    share_of_limit: Math.max(atBandwidth, atRate) / middle,
    limited_by: atBandwidth > atRate ? 'bandwidth' : 'matrix rate',
    peak_memory: taken,
    steps: what.steps,
    tfjs_kernels: asked!.kernels / what.steps,
    ...(asked!.library !== undefined && { library_calls: asked!.library / what.steps }),
    ...kernelCounts(used, what.steps),
  };
}
