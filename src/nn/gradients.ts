import * as tf from '@tensorflow/tfjs';
import { sumOfSquares } from '../engine/ops/index.js';
import type { Parameter } from './parameters.js';

/** Result of a differentiated function: its loss, and any other tensors to keep. */
export type LossAndMore = { loss: tf.Scalar } & Record<string, tf.Tensor>;

/**
 * A parameter's gradient, of its shape. Undefined where the loss does not depend on the parameter, such as a head whose
 * term has zero weight: as in PyTorch, where `.grad` is then `None`, the optimizer skips the parameter.
 */
export type Gradient = tf.Tensor | undefined;

/**
 * Runs `f`, differentiates its `loss` by `parameters`, and returns the result and the gradients in the parameters' order.
 * `onGradient` is called with each gradient as soon as it is computed, the last layer's first, and the parameter's index.
 * Call it within `tf.tidy`: the returned tensors belong to the caller's scope.
 */
export function differentiate<T extends LossAndMore>(
  parameters: readonly Parameter[],
  f: () => T,
  onGradient?: (index: number, gradient: tf.Tensor) => void,
): { result: T; gradients: Gradient[] } {
  const results: LossAndMore[] = [];
  const forward = () => {
    const result = f();
    for (const tensor of Object.values(result)) tf.keep(tensor); // otherwise the forward pass's scope disposes of them
    results.push(result);
    return result.loss;
  };
  const values = parameters.map((p) => p.value);
  if (onGradient) for (const [i, p] of parameters.entries()) p.tap((gradient) => onGradient(i, gradient));
  let grads: Gradient[];
  try {
    // `tf.valueAndGrads` refuses parameters that the loss does not depend on.
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

/** Accumulates micro-batches' gradients: returns `sum` + `next`, kept across scopes, and disposes of `sum`. */
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
 * Runs `f` without recording it for a backward pass, as `torch.no_grad` does. Gradients that `f` itself computes are those
 * of its own functions alone.
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
 * A scalar function of x whose value and gradient by x are computed together, by `compute`, in the forward pass and off the
 * tape: its activations are freed before the backward pass begins.
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
