import * as tf from '@tensorflow/tfjs';
import { sumOfSquares } from '../engine/ops/index.js';
import type { Parameter } from './parameters.js';

/** What a differentiated function gives: its loss, and any other tensors worth keeping. */
export type LossAndMore = { loss: tf.Scalar } & Record<string, tf.Tensor>;

/**
 * A parameter's gradient, of its shape. Undefined where the loss does not depend on the parameter, such as a head whose
 * term has no weight: as in PyTorch, where `.grad` is then `None`, the optimizer leaves the parameter as it is.
 */
export type Gradient = tf.Tensor | undefined;

/**
 * Runs `f`, differentiates its `loss` by `parameters`, and gives both the results and the gradients in order.
 * `onGradient` is told each gradient as soon as it is there, the last layer's first, with the parameter's index.
 * Call it within `tf.tidy`: everything it gives belongs to the caller's scope.
 */
export function differentiate<T extends LossAndMore>(
  parameters: readonly Parameter[],
  f: () => T,
  onGradient?: (index: number, gradient: tf.Tensor) => void,
): { result: T; gradients: Gradient[] } {
  const results: LossAndMore[] = [];
  const forward = () => {
    const result = f();
    for (const tensor of Object.values(result)) tf.keep(tensor); // else the forward pass's own scope disposes of them
    results.push(result);
    return result.loss;
  };
  const values = parameters.map((p) => p.value);
  if (onGradient) for (const [i, p] of parameters.entries()) p.tap((gradient) => onGradient(i, gradient));
  let grads: Gradient[];
  try {
    // `tf.valueAndGrads` would refuse parameters that the loss does not depend on.
    ({ grads } = tf.engine().gradients(forward, values, undefined, true));
  } catch (error) {
    tf.dispose(results);
    throw error;
  } finally {
    if (onGradient) for (const p of parameters) p.untap();
  }
  const owned = Object.entries(results[0]).map(([name, kept]) => {
    const tensor = kept.clone();
    kept.dispose();
    return [name, tensor];
  });
  return { result: Object.fromEntries(owned) as T, gradients: grads };
}

/** Sums of micro-batches' gradients: adds `next` to `sum`, which is disposed of. Kept across scopes. */
export function accumulate(sum: Gradient[] | undefined, next: Gradient[]): Gradient[] {
  const total = sum
    ? sum.map((tensor, i) => (next[i] ? (tensor?.add(next[i]) ?? next[i]) : tensor?.clone()))
    : next;
  for (const tensor of total) if (tensor) tf.keep(tensor);
  tf.dispose(sum ?? []);
  return total;
}

/** √Σ‖g‖² over all gradients. */
export function globalNorm(gradients: readonly Gradient[]): number {
  const present = gradients.filter((gradient) => gradient !== undefined);
  if (present.length === 0) return 0;
  const squares = tf.tidy(() => sumOfSquares(present).dataSync()[0]);
  return Math.sqrt(squares);
}

/**
 * Runs `f` as if no gradient were being taken around it: what it computes is not kept for a backward pass, and gradients
 * that it takes itself are of its own functions alone.
 */
export function noGrad<T>(f: () => T): T {
  const { state } = tf.engine();
  const { gradientDepth, kernelDepth, activeTape } = state;
  Object.assign(state, { gradientDepth: 0, kernelDepth: 0, activeTape: undefined });
  try {
    return f();
  } finally {
    Object.assign(state, { gradientDepth, kernelDepth, activeTape });
  }
}

/**
 * A scalar of x for a gradient around it, from `compute`, which gives its value and its gradient by x together and runs
 * off the tape: what it needed for that is freed before the backward pass begins.
 */
export function withGradient<T extends tf.Tensor>(
  x: T,
  compute: (x: T) => { value: tf.Scalar; grad: tf.Tensor },
): tf.Scalar {
  return tf.customGrad((input, save) => {
    const { value, grad } = noGrad(() => compute(input as T));
    (save as tf.GradSaveFunc)([grad]);
    return { value, gradFunc: (dy, saved) => saved[0].mul(dy) };
  })(x) as tf.Scalar;
}
