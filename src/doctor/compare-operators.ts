import * as tf from '@tensorflow/tfjs';
import { type EngineName, type EngineOptions, openEngine } from '../engine/index.js';
import { OPERATOR_CHECKS, type OperatorCheck, type Rounding, type Values } from './operators.js';

/** The result of one check. */
export interface OperatorResult {
  name: string;
  /**
   * The error of the output that is farthest off relative to its limit: ‖found − expected‖ / ‖expected‖, or for integers and
   * booleans the share that differ. NaN if the check failed to run.
   */
  error: number;
  /** The name of that output, such as `gradient of k`. */
  worst: string;
  /** The largest error that it may have. */
  limit: number;
  /** The time on the tested side, including reading. */
  milliseconds: number;
  passed: boolean;
  /** Why the check failed to run, in one line. */
  failure?: string;
  /** Whether the device stopped working, so that no further check was run. */
  lost?: boolean;
}

/** The error as a share of its limit: up to 1 is rounding. */
export const shareOfLimit = ({ error, limit }: Pick<OperatorResult, 'error' | 'limit'>): number =>
  error === 0 ? 0 : error / limit;

/** Two ways of computing, between which the process can switch. */
export interface Sides {
  /** Switches to the reference: float32 on the CPU. */
  reference(): Promise<unknown>;
  /** Switches to the side that is tested. */
  tested(): Promise<unknown>;
  /** The precision of the tested side. */
  precision: Pick<EngineOptions, 'precision' | 'tf32'>;
}

/** An engine with the given options, against the same engine on the CPU in float32, where it uses other kernels. */
export function besideCpu(engine: EngineName, options: EngineOptions): Sides {
  return {
    reference: () => openEngine(engine, { threads: options.threads, device: 'cpu' }),
    tested: () => openEngine(engine, options),
    precision: options,
  };
}

/**
 * The largest relative errors that count as rounding, by what an operation multiplies and in which precision. Float32 has 24
 * bits of mantissa: the same sum in another order is off by up to 2e-6, convolutions by Winograd's or Fourier's transform by
 * up to ten times that, and products in TF32 that were not asked for by 3e-4. TF32 has 11 bits and bfloat16 8, so factors are
 * off by up to 2⁻¹² and 2⁻⁹ of themselves and sums of products by about as much; gradients by twice that, and errors of
 * consecutive layers add up. Errors measured in bfloat16 are 3e-3 to 6e-3 for layers, 9e-3 for models and 1e-1 through kinks.
 * A wrong mask, weight or scale changes a result by a tenth of itself or more.
 */
const LIMITS: Record<Rounding, Record<'float32' | 'tf32' | 'bf16', number>> = {
  sums: { float32: 3e-5, tf32: 3e-5, bf16: 3e-5 },
  products: { float32: 1e-4, tf32: 2e-3, bf16: 1e-4 },
  layers: { float32: 1e-4, tf32: 2e-3, bf16: 2e-2 },
  model: { float32: 2e-4, tf32: 1e-2, bf16: 6e-2 },
  kinks: { float32: 1e-2, tf32: 1e-1, bf16: 3e-1 },
  packed: { float32: 2e-2, tf32: 2e-2, bf16: 2e-2 },
};

/** The largest error of an output of floating-point numbers. */
function limitOf({ rounding }: OperatorCheck, { precision, tf32 }: Sides['precision']): number {
  const { float32, tf32: shorter, bf16 } = LIMITS[rounding];
  return Math.max(float32, tf32 ? shorter : 0, precision === 'bf16' ? bf16 : 0);
}

/** CUDA errors after which a process can no longer use the device. */
const FATAL =
  /device-side assert|illegal (memory access|instruction|address)|misaligned address|unspecified launch failure|invalid program counter|hardware stack error|uncorrectable ECC|launch timed out/i;

/** One output of a check. */
export interface Output {
  values: ArrayLike<number>;
  shape: number[];
  dtype: tf.DataType;
}

/** Runs a check on the current engine, reads its outputs and frees them. */
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

/** The error of the values found; infinite if any is NaN. */
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

/** Outputs of the reference, by the name of the check. */
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
 * Runs each check on both sides and yields its result as soon as it is done. A check that fails to run is a result like any
 * other, but the last one if the device is lost. Leaves the tested side current.
 * @param only the names of the checks to run; all by default
 * @param known outputs of the reference from an earlier call, such as for another precision; new ones are added
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
