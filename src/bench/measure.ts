import * as tf from '@tensorflow/tfjs';
import { linear } from '../engine/ops/index.js';
import { peakMemory } from '../machine.js';
import type { Case } from './cases.js';

/** What this machine can do at best, measured with the engine that is open. */
export interface Limits {
  /** Bytes a second that a product with few rows reads. */
  bandwidth: number;
  /** Floating-point operations a second of a large matrix product. */
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

/** Times of `repeats` runs after one to warm up: by the clock, and of the processors. */
async function seconds(
  run: () => Promise<void>,
  repeats: number,
): Promise<{ wall: number[]; cpu: number[] }> {
  await run();
  const [wall, cpu]: number[][] = [[], []];
  for (let i = 0; i < repeats; i++) {
    const [start, used] = [performance.now(), process.cpuUsage()];
    await run();
    wall.push((performance.now() - start) / 1000);
    const { user, system } = process.cpuUsage(used);
    cpu.push((user + system) / 1e6);
  }
  return { wall, cpu };
}

/** Reads through 512 MiB for the bandwidth, far more than any cache, and multiplies 1024 × 1024 matrices for the rate. */
export async function measureLimits(): Promise<Limits> {
  const [rows, n, side] = [32768, 4096, 1024];
  const [weights, square] = [tf.ones([rows, n]), tf.ones([side, side])] as tf.Tensor2D[];
  const row = tf.ones([1, n]);
  const timed = async (body: () => tf.Tensor) =>
    Math.min(
      ...(
        await seconds(async () => {
          const result = tf.tidy(body);
          await result.data();
          result.dispose();
        }, 8)
      ).wall,
    );
  const reading = await timed(() => linear(row, weights));
  const product = await timed(() => tf.matMul(square, square));
  tf.dispose([weights, square, row]);
  return { bandwidth: (4 * rows * n) / reading, matrixRate: (2 * side ** 3) / product };
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
