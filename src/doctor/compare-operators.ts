import * as tf from '@tensorflow/tfjs';
import { type EngineName, type EngineOptions, openEngine } from '../engine/index.js';
import { OPERATOR_CHECKS, type OperatorCheck, type Rounding, type Values } from './operators.js';

/** How one operation came out. */
export interface OperatorResult {
  name: string;
  /**
   * Of the output that is farthest off for its kind: ‖found − expected‖ / ‖expected‖; of whole numbers and booleans the
   * share that differ. Not a number where the operation failed.
   */
  error: number;
  /** That output, such as `gradient of k`. */
  worst: string;
  /** What its error may be. */
  limit: number;
  /** What the device took, reading included. */
  milliseconds: number;
  passed: boolean;
  /** Why there is no result, in one line. */
  failure?: string;
  /** Whether the device answers nothing after this, so that nothing more was tried. */
  lost?: boolean;
}

/** How much of what may be off is off: up to 1 is rounding. */
export const shareOfLimit = ({ error, limit }: Pick<OperatorResult, 'error' | 'limit'>): number =>
  error === 0 ? 0 : error / limit;

/** Two ways of computing, between which the process may go back and forth. */
export interface Sides {
  /** Makes the one current that is taken to be right: float32 on the CPU. */
  reference(): Promise<unknown>;
  /** Makes the one current that is to be examined. */
  tested(): Promise<unknown>;
  /** What that one multiplies. */
  precision: Pick<EngineOptions, 'precision' | 'tf32'>;
}

/** An engine as its options say, beside itself on the CPU in float32, where its kernels are others. */
export function besideCpu(engine: EngineName, options: EngineOptions): Sides {
  return {
    reference: () => openEngine(engine, { threads: options.threads, device: 'cpu' }),
    tested: () => openEngine(engine, options),
    precision: options,
  };
}

/**
 * Relative errors that are rounding, by what an operation multiplies and with how many bits of mantissa. Float32 has 24:
 * the same sum in another order is up to 2e-6 off, and convolutions by Winograd's or Fourier's transform up to ten times
 * that, but products in TF32 that nobody asked for 3e-4. TF32 has 11 and bfloat16 8, so that factors are off by up to 2⁻¹²
 * and 2⁻⁹ of themselves, and a sum of products by about as much; its gradients twice that, and layers in a row add
 * up. What passes for rounding of bfloat16 was measured: 3e-3 to 6e-3 for layers, 9e-3 for models, 1e-1 through kinks. A
 * mask, a weight or a scale that is wrong changes a result by a tenth of itself and more.
 */
const LIMITS: Record<Rounding, Record<'float32' | 'tf32' | 'bf16', number>> = {
  sums: { float32: 3e-5, tf32: 3e-5, bf16: 3e-5 },
  products: { float32: 1e-4, tf32: 2e-3, bf16: 1e-4 },
  layers: { float32: 1e-4, tf32: 2e-3, bf16: 2e-2 },
  model: { float32: 2e-4, tf32: 1e-2, bf16: 6e-2 },
  kinks: { float32: 1e-2, tf32: 1e-1, bf16: 3e-1 },
  packed: { float32: 2e-2, tf32: 2e-2, bf16: 2e-2 },
};

/** What an output of floating-point numbers may be off. */
function limitOf({ rounding }: OperatorCheck, { precision, tf32 }: Sides['precision']): number {
  const { float32, tf32: shorter, bf16 } = LIMITS[rounding];
  return Math.max(float32, tf32 ? shorter : 0, precision === 'bf16' ? bf16 : 0);
}

/** CUDA's errors after which a process can do nothing more with the device. */
const FATAL =
  /device-side assert|illegal (memory access|instruction|address)|misaligned address|unspecified launch failure|invalid program counter|hardware stack error|uncorrectable ECC|launch timed out/i;

/** What an operation gave under one name. */
export interface Output {
  values: ArrayLike<number>;
  shape: number[];
  dtype: tf.DataType;
}

/** Runs a check on the current engine, reads all that it gives, and frees it. */
async function outputsOf(run: () => Values | Promise<Values>): Promise<Map<string, Output>> {
  tf.engine().startScope();
  try {
    const outputs = new Map<string, Output>();
    for (const [name, tensor] of Object.entries(await run())) {
      const { shape, dtype } = tensor;
      outputs.set(name, { values: await tensor.data(), shape, dtype });
    }
    return outputs;
  } finally {
    tf.engine().endScope();
  }
}

/** How far found values are from those expected; infinite where they are not numbers. */
function errorOf({ values: found }: Output, { values: expected, dtype }: Output): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference += dtype === 'float32' ? (found[i] - expected[i]) ** 2 : Number(found[i] !== expected[i]);
    size += expected[i] ** 2;
  }
  if (dtype !== 'float32') return difference / Math.max(1, expected.length);
  const error = Math.sqrt(difference / (size > 0 ? size : 1));
  return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
}

const failureOf = (error: unknown) => (error as Error).message.split('\n')[0];

/** What is computed on the reference's side, by the operation's name. */
export type Known = Map<string, Map<string, Output>>;

async function compare(check: OperatorCheck, sides: Sides, known: Known): Promise<OperatorResult> {
  const { name } = check;
  const result: OperatorResult = {
    name,
    error: Number.NaN,
    worst: '',
    limit: 0,
    milliseconds: 0,
    passed: false,
  };
  let start = performance.now();
  try {
    let expected = known.get(name);
    if (!expected) {
      await sides.reference();
      expected = await outputsOf(check.run);
      known.set(name, expected);
    }
    await sides.tested();
    start = performance.now();
    const found = await outputsOf(check.run);
    result.milliseconds = performance.now() - start;
    let worst = -1;
    for (const [output, one] of expected) {
      const other = found.get(output);
      const kind = ({ dtype, shape }: Output) => `${dtype} [${shape}]`;
      if (!other || kind(other) !== kind(one))
        throw new Error(`${output} is ${other ? kind(other) : 'missing'}, not ${kind(one)}`);
      const error = errorOf(other, one);
      const limit = one.dtype === 'float32' ? limitOf(check, sides.precision) : 0;
      const share = shareOfLimit({ error, limit });
      if (share > worst) Object.assign(result, { error, limit, worst: output });
      worst = Math.max(worst, share);
    }
    return { ...result, passed: worst <= 1 };
  } catch (error) {
    const failure = failureOf(error);
    result.milliseconds = performance.now() - start;
    return { ...result, failure, ...(FATAL.test(failure) && { lost: true }) };
  }
}

/**
 * Runs each operation on both sides and gives how far the tested one is off, one after the other as they are done. One that
 * fails is a result like others, unless the device is lost by it: then it is the last. Leaves the tested side current.
 * @param only the names of those to run; all if absent
 * @param known what the reference gave before, for another precision; it is added to
 */
export async function* compareOperators(
  sides: Sides,
  { only, known = new Map() }: { only?: readonly string[]; known?: Known } = {},
): AsyncGenerator<OperatorResult> {
  for (const check of OPERATOR_CHECKS) {
    if (only && !only.includes(check.name)) continue;
    const result = await compare(check, sides, known);
    yield result;
    if (result.lost) return;
  }
}
