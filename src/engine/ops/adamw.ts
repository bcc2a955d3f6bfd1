import type * as tf from '@tensorflow/tfjs';
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

const run = defineOp<AdamWAttributes>({
  name: 'alitok.AdamW',
  compose: (
    { parameter, gradient, m, v },
    { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale },
  ) => {
    const g = gradient.mul(gradientScale);
    const mNext = m.mul(beta1).add(g.mul(1 - beta1));
    const vNext = v.mul(beta2).add(g.square().mul(1 - beta2));
    const denominator = vNext
      .sqrt()
      .div(Math.sqrt(1 - beta2 ** step))
      .add(epsilon);
    const update = mNext.div(denominator).mul(lr / (1 - beta1 ** step));
    return [parameter.mul(1 - lr * weightDecay).sub(update), mNext, vNext];
  },
});

/**
 * One step of AdamW (Loshchilov & Hutter, 2019; decoupled decay as PyTorch does it) for one parameter.
 * All tensors have the parameter's shape. Gives the next [parameter, m, v]; the old ones stay.
 */
export function adamW(
  parameter: tf.Tensor,
  gradient: tf.Tensor,
  m: tf.Tensor,
  v: tf.Tensor,
  attributes: AdamWAttributes,
): [tf.Tensor, tf.Tensor, tf.Tensor] {
  return run({ parameter, gradient, m, v }, attributes) as [tf.Tensor, tf.Tensor, tf.Tensor];
}
