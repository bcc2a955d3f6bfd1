import type * as tf from '@tensorflow/tfjs';
import { defineOp, type Inputs } from './define.js';

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

/** What one step works on for one parameter: tensors of the parameter's shape. */
export const ADAMW_INPUTS = ['parameter', 'gradient', 'm', 'v'] as const;
export type AdamWTensors = Record<(typeof ADAMW_INPUTS)[number], tf.Tensor>;

/** One list for each of ADAMW_INPUTS out of the kernel's flat inputs, `parameter0`, `gradient0`, … */
export function adamWLists<T>(inputs: Record<string, T>): T[][] {
  const count = Object.keys(inputs).length / ADAMW_INPUTS.length;
  return ADAMW_INPUTS.map((name) => Array.from({ length: count }, (_, i) => inputs[`${name}${i}`]));
}

function next(
  { parameter, gradient, m, v }: Inputs,
  { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale }: AdamWAttributes,
): [tf.Tensor, tf.Tensor, tf.Tensor] {
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

const run = defineOp<AdamWAttributes>({
  name: 'alitok.AdamW',
  compose: (inputs, attributes) => {
    const [parameters, gradients, ms, vs] = adamWLists(inputs);
    return parameters.flatMap((parameter, i) =>
      next({ parameter, gradient: gradients[i], m: ms[i], v: vs[i] }, attributes),
    );
  },
});

/**
 * One step of AdamW (Loshchilov & Hutter, 2019; decoupled decay as PyTorch does it) for any number of parameters.
 * Gives the next [parameter, m, v] of each. The old ones are to be disposed of unread: engines may reuse their memory.
 */
export function adamW(
  tensors: readonly AdamWTensors[],
  attributes: AdamWAttributes,
): [tf.Tensor, tf.Tensor, tf.Tensor][] {
  const inputs: Inputs = {};
  tensors.forEach((one, i) => {
    for (const name of ADAMW_INPUTS) inputs[`${name}${i}`] = one[name];
  });
  const flat = run(inputs, attributes) as tf.Tensor[];
  return tensors.map((_, i) => flat.slice(3 * i, 3 * i + 3) as [tf.Tensor, tf.Tensor, tf.Tensor]);
}
