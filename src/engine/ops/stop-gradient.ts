import * as tf from '@tensorflow/tfjs';

/**
 * The same values as a constant for differentiation: a second handle on x's data that the gradient tape has not
 * seen. (tfjs records even `clone`, and has no such operation of its own.)
 */
export function stopGradient<T extends tf.Tensor>(x: T): T {
  const engine = tf.engine();
  engine.backend.incRef(x.dataId);
  return engine.makeTensorFromTensorInfo({ dataId: x.dataId, shape: x.shape, dtype: x.dtype }) as T;
}
