import * as tf from '@tensorflow/tfjs';

/** The part of a backend that decides how products are computed; only libtorch's has it. */
interface ChoosesProducts {
  precision: 'float32' | 'bf16';
  tf32: boolean;
}

/**
 * Runs `f` with products in float32, even if the engine was started with bf16 or TF32, and returns its result. For everything
 * that needs full precision: metrics, the nearest code, and loss networks in mixed-precision training.
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
