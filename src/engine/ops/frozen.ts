import * as tf from '@tensorflow/tfjs';
import { defineOp, rows } from './define.js';

// Layers of networks that are not trained, such as those that losses are made of: there is a gradient by x alone, and no
// more is kept for it than it needs. Weights are as PyTorch keeps them.

type Window = { stride: number; same: boolean; relu: boolean };

/** What tfjs's own kernels of convolutions are told. */
const window = ({ stride, same }: Omit<Window, 'relu'>) => ({
  strides: [stride, stride],
  pad: same ? 'same' : 'valid',
  dataFormat: 'NHWC',
  dilations: [1, 1],
});

const run = (kernel: string, inputs: Record<string, tf.Tensor>, attributes: object) =>
  tf.engine().runKernel(kernel, inputs, attributes as tf.NamedAttrMap) as tf.Tensor;

/** A weight (out, in, h, w) as tfjs wants it: (h, w, in, out). */
const toHWIO = (weight: tf.Tensor) => tf.transpose(weight as tf.Tensor4D, [2, 3, 1, 0]);

const runConv2d = defineOp<Window>({
  name: 'alitok.FrozenConv2d',
  compose: ({ x, weight, bias }, attributes) =>
    run(
      'FusedConv2D',
      { x, filter: toHWIO(weight), ...(bias && { bias }) },
      { ...window(attributes), activation: attributes.relu ? 'relu' : 'linear' },
    ),
  save: ['x', 'weight'],
  saveOutput: true,
  gradient: (dy, { x, weight, output }, attributes) => {
    const through = attributes.relu ? (reluGrad({ dy, y: output }, {}) as tf.Tensor) : dy;
    const settings = { ...window(attributes), inputShape: x.shape };
    return { x: run('Conv2DBackpropInput', { dy: through, filter: toHWIO(weight) }, settings) };
  },
});

/** 0 where y ≤ 0, else dy. It selects: what is not a number ends where y is 0, as in the gradient of a norm of zeros. */
const reluGrad = defineOp({
  name: 'alitok.ReluGrad',
  compose: ({ dy, y }) => tf.where(y.lessEqual(0), tf.zerosLike(dy), dy),
});

/**
 * Convolution of x (B, H, W, in) by a weight (out, in, h, w) and a bias (out), then ReLU if `relu`. Gives
 * (B, H′, W′, out): H′ = ⌈H/stride⌉ where `same`, padded as TensorFlow does, else as many as fit.
 */
export function frozenConv2d(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  bias: tf.Tensor,
  { stride = 1, same = false, relu = false }: Partial<Window> = {},
): tf.Tensor4D {
  return runConv2d({ x, weight, bias }, { stride, same, relu }) as tf.Tensor4D;
}

/** A depthwise weight (C, 1, h, w) as tfjs wants it: (h, w, C, 1). */
const toHWC1 = (weight: tf.Tensor) => tf.transpose(weight as tf.Tensor4D, [2, 3, 0, 1]);

const DEPTHWISE = window({ stride: 1, same: true });

const runDepthwise = defineOp({
  name: 'alitok.FrozenDepthwiseConv2d',
  compose: ({ x, weight, bias }) =>
    run('DepthwiseConv2dNative', { x, filter: toHWC1(weight) }, DEPTHWISE).add(bias),
  save: ['weight'],
  gradient: (dy, { weight }) => {
    const settings = { ...DEPTHWISE, inputShape: dy.shape };
    return { x: run('DepthwiseConv2dNativeBackpropInput', { dy, filter: toHWC1(weight) }, settings) };
  },
});

/** Each channel's own convolution, weight (C, 1, h, w) and bias (C), padded to the same size: x (B, H, W, C) → the same. */
export function frozenDepthwiseConv2d(x: tf.Tensor4D, weight: tf.Tensor, bias: tf.Tensor): tf.Tensor4D {
  return runDepthwise({ x, weight, bias }, {}) as tf.Tensor4D;
}

const runLinear = defineOp({
  name: 'alitok.FrozenLinear',
  compose: ({ x, weight, bias }) => run('alitok.Linear', { x, weight, bias }, {}),
  save: ['weight'],
  gradient: (dy, { weight }) => {
    const inputs = weight.shape[1] as number;
    return { x: tf.matMul(rows(dy), weight as tf.Tensor2D).reshape([...dy.shape.slice(0, -1), inputs]) };
  },
});

/** x·weightᵀ + bias, for x (…, in), weight (out, in), bias (out). Gives (…, out). */
export function frozenLinear<T extends tf.Tensor>(x: T, weight: tf.Tensor, bias: tf.Tensor): T {
  return runLinear({ x, weight, bias }, {}) as T;
}
