import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../../errors.js';
import { defineKernel, defineOp, hasKernel } from './define.js';
import { rows } from './shapes.js';

const linearGrad = defineOp({
  name: 'alitok.LinearGrad',
  inputs: ['dy', 'x', 'weight'],
  compose: ({ dy, x, weight }) => [
    tf.matMul(dy as tf.Tensor2D, weight as tf.Tensor2D),
    tf.matMul(dy as tf.Tensor2D, rows(x), true, false),
  ],
});

export const linearOp = defineOp({
  name: 'alitok.Linear',
  inputs: ['x', 'weight', 'bias?'],
  compose: ({ x, weight, bias }, _: { biased: boolean }) => {
    const y = tf.matMul(rows(x), weight as tf.Tensor2D, false, true);
    return (bias ? y.add(bias) : y).reshape([...x.shape.slice(0, -1), weight.shape[0]]);
  },
  save: ['x', 'weight'],
  backward: linearGrad,
  gradient: (dy, { x, weight }, { biased }) => {
    const dyRows = rows(dy);
    const [dx, dweight] = linearGrad({ dy: dyRows, x, weight });
    return { x: dx.reshape(x.shape), weight: dweight, ...(biased && { bias: dyRows.sum(0) }) };
  },
});

/** y = x·weightᵀ + bias, for x (…, in), weight (out, in) as in PyTorch, bias (out). Returns (…, out). */
export function linear(x: tf.Tensor, weight: tf.Tensor, bias?: tf.Tensor): tf.Tensor {
  return linearOp({ x, weight, bias }, { biased: bias !== undefined });
}

/** How weights are stored while codes are sampled, where reading them takes most of the time. */
export type WeightKind = 'float32' | 'bf16' | 'int8';

/** A weight (out, in) in bfloat16, or in 8-bit integers with a scale for each row, laid out as the engine needs it. */
export interface PackedWeight {
  weight: tf.Tensor;
  scale?: tf.Tensor;
}

export const packWeightOp = defineKernel<'weight', { int8: boolean }, tf.Tensor[]>({
  name: 'alitok.PackWeight',
  inputs: ['weight'],
  instead: 'error',
});

/** Packs a weight (out, in). Throws EngineError where the engine has no kernels for it. */
export function packWeight(weight: tf.Tensor, kind: Exclude<WeightKind, 'float32'>): PackedWeight {
  if (!hasKernel(packWeightOp))
    throw new EngineError(
      `the engine ${tf.getBackend()} does not support weights in ${kind}; use ${option('engine', 'libtorch')}`,
    );
  const [packed, scale] = packWeightOp({ weight }, { int8: kind === 'int8' });
  return { weight: packed, scale };
}

export const packedLinearOp = defineKernel<'x' | 'weight' | 'scale?' | 'bias?', object, tf.Tensor>({
  name: 'alitok.PackedLinear',
  inputs: ['x', 'weight', 'scale?', 'bias?'],
  instead: 'error',
});

/** y = x·weightᵀ + bias as in `linear`, for few rows of x and without a gradient. */
export function packedLinear(x: tf.Tensor, { weight, scale }: PackedWeight, bias?: tf.Tensor): tf.Tensor {
  return packedLinearOp({ x, weight, scale, bias });
}
