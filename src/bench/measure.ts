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
import { turn } from '../job/turn.js';
import type { Case } from './cases.js';

/** What this machine can do at best, measured with the engine that is open. */
export interface Limits {
  /** Bytes a second that a product with few rows reads. */
  bandwidth: number;
  /** Floating-point operations a second of a large matrix product, in the precision that is chosen. */
  matrixRate: number;
}

export interface Measurement {
  description: string;
  /** Of one run: the median of all repeats, and the fastest. */
  seconds: number;
  fastest: number;
  /** Of one run, the median: what the process took of the processors, of all its threads together. */
  processor_seconds: number;
  images_per_second: number;
  /** Of the measured limit: bandwidth for sampling with few rows, the matrix rate for everything else. */
  share_of_limit: number;
  limited_by: 'bandwidth' | 'matrix rate';
  /** Most memory that was taken meanwhile, bytes: of a CUDA device by tensors, else by this process. */
  peak_memory: number;
  /** Decoding steps of one run; 1 for what has none. */
  steps: number;
  /** What the host asked for in one decoding step, on average, or in one run: kernels of tfjs, and calls of PyTorch. */
  tfjs_kernels: number;
  bridge_calls?: number;
  /** Kernels that a CUDA device ran in one run, those of one decoding step, and the seconds that they took together. */
  kernels?: number;
  kernels_per_step?: number;
  kernel_seconds?: number;
  /** The kinds of kernels that took longest, copies and fills among them. */
  longest_kernels?: KernelUse[];
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Waits until the device has done all that was asked of it so far: it works in order, and this is the last. */
async function settled(): Promise<void> {
  const last = tf.fill([1], 0);
  await last.data();
  last.dispose();
}

/** Seconds of one run to its end on the device: by the clock, and of the processors. */
export async function time(run: () => Promise<void>): Promise<{ wall: number; cpu: number }> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  await run();
  await settled();
  const { user, system } = process.cpuUsage(used);
  return { wall: (performance.now() - start) / 1000, cpu: (user + system) / 1e6 };
}

/** Those of `repeats` runs after one to warm up. */
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

/** A measurement shorter than this, in seconds, is more of its beginning and end than of itself. */
const LONG_ENOUGH = 0.01;
const REPEATS = 8;

/** Seconds of one `body` at best, of as many in a row as take long enough. */
async function best(body: () => tf.Tensor): Promise<number> {
  for (let count = 1; ; count *= 4) {
    const row = async () => {
      for (let i = 0; i < count; i++) tf.tidy(body).dispose();
    };
    const fastest = Math.min(...(await times(row, REPEATS)).wall);
    if (fastest >= LONG_ENOUGH) return fastest / count;
  }
}

/** Operations a second from which on a larger product is needed to keep a device busy. */
const FAST_DEVICE = 1e12;
/** Rows and columns of a product, and how many products each of its sums has. */
const PRODUCTS = { small: { side: 1024, depth: 1024 }, large: { side: 4096, depth: 16384 } };

/** Operations a second of a matrix product. The large one is deep, so that writing its result counts for little. */
async function rateOf({ side, depth }: { side: number; depth: number }): Promise<number> {
  const matrix = tf.fill([side, depth], 1);
  const rate = (2 * side ** 2 * depth) / (await best(() => linear(matrix, matrix)));
  matrix.dispose();
  return rate;
}

/**
 * Reads through 512 MiB for the bandwidth, in bf16 half of it, far more than any cache, and multiplies matrices for the
 * rate, all in the precision that the engine was opened with.
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

/** How many kinds of kernels are named. */
const NAMED = 12;
/** What the profiler calls copies and fills, which are no kernels. */
const TRANSFER = /^Mem(cpy|set)\b/;

function kernelCounts(used: KernelUse[] | undefined, steps: number): Partial<Measurement> {
  if (!used) return {};
  const kernels = used.filter(({ name }) => !TRANSFER.test(name)).reduce((sum, { count }) => sum + count, 0);
  const seconds = used.reduce((sum, kernel) => sum + kernel.seconds, 0);
  const perStep = steps > 1 && { kernels_per_step: kernels / steps };
  return { kernels, ...perStep, kernel_seconds: seconds, longest_kernels: used.slice(0, NAMED) };
}

/** Runs a case once to warm up and then `repeats` times; on a CUDA device once more, for its kernels. */
export async function measure(what: Case, repeats: number, limits: Limits): Promise<Measurement> {
  const peak = watchMemory();
  let asked: Calls | undefined;
  const counted = async () => {
    asked = await countCalls(what.run); // the last run counts; counting costs little beside a call
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
    ...(asked!.bridge !== undefined && { bridge_calls: asked!.bridge / what.steps }),
    ...kernelCounts(used, what.steps),
  };
}
