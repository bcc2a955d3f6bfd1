import * as tf from '@tensorflow/tfjs';
import { linear } from '../engine/ops/index.js';
import { peakMemory } from '../machine.js';
import type { Case } from './cases.js';

/** What this machine can do at best, measured with the engine that is open. */
export interface Limits {
  /** Bytes a second that a product with few rows reads. */
  bandwidth: number;
  /** Floating-point operations a second of a large matrix product, in the precision that is chosen. */
  matrixRate: number;
}

export interface Measurement {
  case: string;
  /** Of one run: the median of all repeats, and the fastest. */
  seconds: number;
  fastest: number;
  /** Of one run, the median: what the process took of the processors, of all its threads together. */
  processor_seconds: number;
  images_per_second: number;
  /** Of the measured limit: bandwidth for sampling with few rows, the matrix rate for everything else. */
  share_of_limit: number;
  limited_by: 'bandwidth' | 'matrix rate';
  /** Most memory of the process so far, bytes. */
  peak_memory: number;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Waits until the device has done all that was asked of it so far: it works in order, and this is the last. */
async function settled(): Promise<void> {
  const last = tf.zeros([1]);
  await last.data();
  last.dispose();
}

/** Times of `repeats` runs after one to warm up, each to its end on the device: by the clock, and of the processors. */
async function seconds(
  run: () => Promise<void>,
  repeats: number,
): Promise<{ wall: number[]; cpu: number[] }> {
  await run();
  await settled();
  const [wall, cpu]: number[][] = [[], []];
  for (let i = 0; i < repeats; i++) {
    const [start, used] = [performance.now(), process.cpuUsage()];
    await run();
    await settled();
    wall.push((performance.now() - start) / 1000);
    const { user, system } = process.cpuUsage(used);
    cpu.push((user + system) / 1e6);
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
    const fastest = Math.min(...(await seconds(row, REPEATS)).wall);
    if (fastest >= LONG_ENOUGH) return fastest / count;
  }
}

/** Operations a second from which on a larger product is needed to keep a device busy. */
const FAST_DEVICE = 1e12;
const SIDES = { small: 1024, large: 4096 };

/** Operations a second of a product of square matrices. */
async function rateOf(side: number): Promise<number> {
  const square = tf.ones([side, side]);
  const rate = (2 * side ** 3) / (await best(() => linear(square, square)));
  square.dispose();
  return rate;
}

/** Reads through 512 MiB for the bandwidth, far more than any cache, and multiplies square matrices for the rate. */
export async function measureLimits(): Promise<Limits> {
  const [rows, n] = [32768, 4096];
  const [weights, row] = [tf.ones([rows, n]), tf.ones([1, n])];
  const reading = await best(() => linear(row, weights));
  tf.dispose([weights, row]);
  const matrixRate = await rateOf(SIDES.small);
  return {
    bandwidth: (4 * rows * n) / reading,
    matrixRate: matrixRate < FAST_DEVICE ? matrixRate : await rateOf(SIDES.large),
  };
}

/** Runs a case once to warm up and then `repeats` times. */
export async function measure(what: Case, repeats: number, limits: Limits): Promise<Measurement> {
  const { wall, cpu } = await seconds(what.run, repeats);
  const middle = median(wall);
  const atBandwidth = (what.steps * what.bytesPerStep) / limits.bandwidth;
  const atRate = what.operations / limits.matrixRate;
  return {
    case: what.name,
    seconds: middle,
    fastest: Math.min(...wall),
    processor_seconds: median(cpu),
    images_per_second: what.images / middle,
    share_of_limit: Math.max(atBandwidth, atRate) / middle,
    limited_by: atBandwidth > atRate ? 'bandwidth' : 'matrix rate',
    peak_memory: peakMemory(),
  };
}
