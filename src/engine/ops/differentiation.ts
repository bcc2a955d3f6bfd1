import * as tf from '@tensorflow/tfjs';

// Ways to differentiate that need no kernel.

/**
 * The same values as a constant for differentiation: a second handle on x's data that the gradient tape has not
 * recorded. (tfjs records even `clone` and has no such operation.)
 */
export function stopGradient<T extends tf.Tensor>(x: T): T {
  const engine = tf.engine();
  engine.backend.incRef(x.dataId);
  return engine.makeTensorFromTensorInfo({ dataId: x.dataId, shape: x.shape, dtype: x.dtype }) as T;
}

/**
 * f(x) with activation checkpointing (Chen et al. 2016): only x is kept for the gradient, and the backward pass computes f
 * again. Value and gradients are those of f itself; the price is one more forward pass.
 * @param f must return the same each time, so random numbers must be drawn before
 * @param weights all tensors other than x by which f is differentiated
 */
export function checkpointActivations<T extends tf.Tensor>(
  f: (x: T) => T,
  x: T,
  weights: readonly tf.Tensor[],
): T {
  const run = tf.customGrad<T>((...inputs) => {
    const save = inputs.at(-1) as tf.GradSaveFunc;
    save([x]);
    return {
      value: f(x),
      gradFunc: (dy: tf.Tensor, [kept]: tf.Tensor[]) =>
        gradientsAgain(() => f(kept as T), [kept, ...weights], dy),
    };
  });
  return run(x, ...weights);
}

/** Gradients of f() by `xs` within a backward pass. Recording another tape makes tfjs forget the active one, so it is restored. */
function gradientsAgain(f: () => tf.Tensor, xs: tf.Tensor[], dy: tf.Tensor): tf.Tensor[] {
  const { state } = tf.engine();
  const { activeTape } = state;
  try {
    return tf.tidy(() => tf.engine().gradients(f, xs, dy).grads);
  } finally {
    state.activeTape = activeTape;
  }
}
