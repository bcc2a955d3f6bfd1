import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

/** Hyper-parameters of one AdamW step; `step` counts from 1, `gradientScale` multiplies the gradient first. */
export type AdamWAttributes = {
  lr: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  step: number;
  gradientScale: number;
};

const ADAMW_INPUTS = ['parameter', 'gradient', 'm', 'v'] as const;
/** What one step reads for one parameter: tensors of the parameter's shape. */
export type AdamWTensors = Record<(typeof ADAMW_INPUTS)[number], tf.Tensor>;

/** The kernel's inputs `parameter0`, `gradient0`, … as four lists: parameters, gradients, m and v. */
export function adamWLists<T>(inputs: Record<string, T>): T[][] {
  const count = Object.keys(inputs).length / ADAMW_INPUTS.length;
  return ADAMW_INPUTS.map((name) => Array.from({ length: count }, (_, i) => inputs[`${name}${i}`]));
}

function next(
  { parameter, gradient, m, v }: AdamWTensors,
  { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale }: AdamWAttributes,
): tf.Tensor[] {
  const g = gradient.mul(gradientScale);
  const mNext = m.mul(beta1).add(g.mul(1 - beta1));
  const vNext = v.mul(beta2).add(g.square().mul(1 - beta2));
  const denominator = vNext
    .sqrt()
    .div(Math.sqrt(1 - beta2 ** step))
    .add(epsilon);
  const update = mNext.div(denominator).mul(lr / (1 - beta1 ** step));
  return [parameter.mul(1 - lr * weightDecay).sub(update), mNext, vNext];
}

export const adamWOp = defineOp({
  name: 'alitok.AdamW',
  inputs: ['parameter*', 'gradient*', 'm*', 'v*'],
  compose: (inputs, attributes: AdamWAttributes) => {
    const [parameters, gradients, ms, vs] = adamWLists<tf.Tensor>(inputs);
    return parameters.flatMap((parameter, i) =>
      next({ parameter, gradient: gradients[i], m: ms[i], v: vs[i] }, attributes),
    );
  },
});

/**
 * One step of AdamW (Loshchilov & Hutter, 2019; decoupled decay as in PyTorch) for any number of parameters.
 * Returns the next [parameter, m, v] of each. Dispose of the old ones without reading them: an engine may reuse their memory.
 */
export function adamW(
  tensors: readonly AdamWTensors[],
  attributes: AdamWAttributes,
): [tf.Tensor, tf.Tensor, tf.Tensor][] {
  const inputs: Record<string, tf.Tensor> = {};
  tensors.forEach((one, i) => {
    for (const name of ADAMW_INPUTS) inputs[`${name}${i}`] = one[name];
  });
  const flat = adamWOp(inputs, attributes);
  return tensors.map((_, i) => flat.slice(3 * i, 3 * i + 3) as [tf.Tensor, tf.Tensor, tf.Tensor]);
}

export const sumOfSquaresOp = defineOp({
  name: 'alitok.SumOfSquares',
  inputs: ['x*'],
  compose: (inputs) => tf.addN(Object.values<tf.Tensor>(inputs).map((x) => x.square().sum())),
});

/** Σ x² over all elements of all tensors, a scalar. */
export function sumOfSquares(tensors: readonly tf.Tensor[]): tf.Scalar {
  return sumOfSquaresOp(Object.fromEntries(tensors.map((x, i) => [`x${i}`, x]))) as tf.Scalar;
}
