import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';

type Window = { stride: number; same: boolean; relu: boolean };

/** A weight (out, in, h, w) as tfjs wants it: (h, w, in, out). */
const toHWIO = (weight: tf.Tensor) => tf.transpose(weight as tf.Tensor4D, [2, 3, 1, 0]);

/** What tfjs's own kernels of convolutions are told. */
const window = ({ stride, same }: Window) => ({
  strides: [stride, stride],
  pad: same ? 'same' : 'valid',
  dataFormat: 'NHWC',
  dilations: [1, 1],
});

const run = defineOp<Window>({
  name: 'alitok.FixedConv2d',
  compose: ({ x, weight, bias }, attributes) =>
    tf
      .engine()
      .runKernel(
        'FusedConv2D',
        { x, filter: toHWIO(weight), ...(bias && { bias }) },
        { ...window(attributes), activation: attributes.relu ? 'relu' : 'linear' },
      ) as tf.Tensor,
  save: ['x', 'weight'],
  saveOutput: true,
  gradient: (dy, { x, weight, output }, attributes) => {
    const through = attributes.relu ? (reluGrad({ dy, y: output }, {}) as tf.Tensor) : dy;
    const dx = tf
      .engine()
      .runKernel(
        'Conv2DBackpropInput',
        { dy: through, filter: toHWIO(weight) },
        { ...window(attributes), inputShape: x.shape },
      ) as tf.Tensor;
    return { x: dx };
  },
});

const reluGrad = defineOp({
  name: 'alitok.ReluGrad',
  compose: ({ dy, y }) => dy.mul(y.step()),
});

/**
 * Convolution of x (B, H, W, in) by a weight (out, in, h, w) as PyTorch keeps it and a bias (out), with ReLU if `relu`.
 * Gives (B, H′, W′, out): H′ = ⌈H/stride⌉ where `same`, padded as TensorFlow does, else what fits. For networks that are
 * not trained: there is a gradient by x alone, and only x and the result are kept for it.
 */
export function fixedConv2d(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  bias: tf.Tensor | undefined,
  { stride = 1, same = false, relu = false }: Partial<Window> = {},
): tf.Tensor4D {
  return run({ x, weight, bias }, { stride, same, relu }) as tf.Tensor4D;
}
