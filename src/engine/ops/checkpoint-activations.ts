import * as tf from '@tensorflow/tfjs';

/**
 * f(x), of which nothing is kept for the gradient but x: the backward pass computes f again (activation checkpointing,
 * Chen et al. 2016). Value and gradients are those of f itself, for one more forward pass in time.
 * @param f gives the same each time; whatever it draws at random must be drawn before
 * @param weights all tensors other than x that f's gradient is wanted by
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

/** Gradients of f() by `xs` within a backward pass. tfjs forgets the tape it is going back along when it records another. */
function gradientsAgain(f: () => tf.Tensor, xs: tf.Tensor[], dy: tf.Tensor): tf.Tensor[] {
  const { state } = tf.engine();
  const { activeTape } = state;
  try {
    return tf.tidy(() => tf.engine().gradients(f, xs, dy).grads);
  } finally {
    state.activeTape = activeTape;
  }
}
