import * as tf from '@tensorflow/tfjs';

/** What an engine with a choice of products has: libtorch alone. */
interface ChoosesProducts {
  precision: 'float32' | 'bf16';
  tf32: boolean;
}

/**
 * Runs `f` with exact products of float32 numbers, whatever the engine was started with (`--precision bf16`, `--tf32`), and
 * gives its result: for what is defined by exact numbers, such as metrics, the loss networks of mixed-precision training
 * and the nearest code.
 */
export function inFloat32<T>(f: () => T): T {
  const backend = tf.backend() as Partial<ChoosesProducts>;
  const { precision, tf32 } = backend;
  if (precision === undefined || tf32 === undefined || (precision === 'float32' && !tf32)) return f();
  Object.assign(backend, { precision: 'float32', tf32: false });
  try {
    return f();
  } finally {
    Object.assign(backend, { precision, tf32 });
  }
}
