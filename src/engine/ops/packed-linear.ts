import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../../errors.js';

/** What a weight is kept in where reading it is what takes the time. */
export type WeightKind = 'float32' | 'bf16' | 'int8';

/** A weight (out, in) in fewer bits: bfloat16, or 8-bit integers with a scale for each row, in an engine's own order. */
export interface PackedWeight {
  weight: tf.Tensor;
  scale?: tf.Tensor;
}

const PACK = 'alitok.PackWeight';

/** Packs a weight (out, in). Throws EngineError where the engine has no kernels for it. */
export function packWeight(weight: tf.Tensor, kind: Exclude<WeightKind, 'float32'>): PackedWeight {
  if (!tf.getKernel(PACK, tf.getBackend()))
    throw new EngineError(
      `the engine ${tf.getBackend()} has no weights in ${kind}; use ${option('engine', 'libtorch')}`,
    );
  const [packed, scale] = tf.engine().runKernel(PACK, { weight }, { int8: kind === 'int8' }) as tf.Tensor[];
  return { weight: packed, scale };
}

/** y = x·weightᵀ + bias as `linear`, for few rows of x and without a gradient. */
export function packedLinear(x: tf.Tensor, { weight, scale }: PackedWeight, bias?: tf.Tensor): tf.Tensor {
  const inputs = Object.entries({ x, weight, scale, bias }).filter(([, tensor]) => tensor !== undefined);
  return tf
    .engine()
    .runKernel('alitok.PackedLinear', Object.fromEntries(inputs) as tf.NamedTensorMap, {}) as tf.Tensor;
}
