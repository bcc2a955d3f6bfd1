import * as tf from '@tensorflow/tfjs';

/**
 * Runs `f` with products of float32 numbers, whatever precision the engine was started with, and gives its result: for
 * what is defined by exact numbers, such as metrics and the loss networks of mixed-precision training.
 */
export function inFloat32<T>(f: () => T): T {
  const backend = tf.backend() as { precision?: 'float32' | 'bf16' }; // only libtorch has a choice
  const { precision } = backend;
  if (precision === undefined || precision === 'float32') return f();
  backend.precision = 'float32';
  try {
    return f();
  } finally {
    backend.precision = precision;
  }
}
