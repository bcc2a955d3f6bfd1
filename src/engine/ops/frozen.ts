import * as tf from '@tensorflow/tfjs';
import { defineOp } from './define.js';
import { linearOp } from './linear.js';
import { rows } from './shapes.js';

// Layers of frozen networks, such as those that losses are made of or that adapters are added to. They have a gradient by x only and save no more than it
// needs. Weights have PyTorch's layout.

type Window = { stride: number; same: boolean; relu: boolean };

/** The attributes of tfjs's own kernels for convolutions. */
const window = ({ stride, same }: Omit<Window, 'relu'>) => ({
  strides: [stride, stride],
  pad: same ? 'same' : 'valid',
  dataFormat: 'NHWC',
  dilations: [1, 1],
});

const run = (kernel: string, inputs: Record<string, tf.Tensor>, attributes: object) =>
  tf.engine().runKernel(kernel, inputs, attributes as tf.NamedAttrMap) as tf.Tensor;

/** A weight (out, in, h, w) in tfjs's layout: (h, w, in, out). */
const toHWIO = (weight: tf.Tensor) => tf.transpose(weight as tf.Tensor4D, [2, 3, 1, 0]);

/**
 * 0 where y ≤ 0, else dy. It selects instead of multiplying, so that a NaN in dy ends where y is 0, as in the gradient of a norm
 * of zeros.
 */
const reluGrad = defineOp({
  name: 'alitok.ReluGrad',
  inputs: ['dy', 'y'],
  compose: ({ dy, y }) => tf.where(y.lessEqual(0), tf.zerosLike(dy), dy),
});

export const frozenConv2dOp = defineOp({
  name: 'alitok.FrozenConv2d',
  inputs: ['x', 'weight', 'bias'],
  compose: ({ x, weight, bias }, attributes: Window) =>
    run(
      'FusedConv2D',
      { x, filter: toHWIO(weight), bias },
      { ...window(attributes), activation: attributes.relu ? 'relu' : 'linear' },
    ),
  save: ['x', 'weight', 'output'],
  backward: reluGrad,
  gradient: (dy, { x, weight, output }, attributes) => {
    const through = attributes.relu ? reluGrad({ dy, y: output }) : dy;
    const settings = { ...window(attributes), inputShape: x.shape };
    return { x: run('Conv2DBackpropInput', { dy: through, filter: toHWIO(weight) }, settings) };
  },
});

/**
 * Convolution of x (B, H, W, in) by a weight (out, in, h, w) and a bias (out), then ReLU if `relu`. Returns
 * (B, H′, W′, out): H′ = ⌈H/stride⌉ with `same`, which pads as TensorFlow does, else the number of windows that fit.
 */
export function frozenConv2d(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  bias: tf.Tensor,
  { stride = 1, same = false, relu = false }: Partial<Window> = {},
): tf.Tensor4D {
  return frozenConv2dOp({ x, weight, bias }, { stride, same, relu }) as tf.Tensor4D;
}

/** A depthwise weight (C, 1, h, w) in tfjs's layout: (h, w, C, 1). */
const toHWC1 = (weight: tf.Tensor) => tf.transpose(weight as tf.Tensor4D, [2, 3, 0, 1]);

const DEPTHWISE = window({ stride: 1, same: true });

export const frozenDepthwiseConv2dOp = defineOp({
  name: 'alitok.FrozenDepthwiseConv2d',
  inputs: ['x', 'weight', 'bias'],
  compose: ({ x, weight, bias }) =>
    run('DepthwiseConv2dNative', { x, filter: toHWC1(weight) }, DEPTHWISE).add(bias) as tf.Tensor,
  save: ['weight'],
  gradient: (dy, { weight }) => {
    const settings = { ...DEPTHWISE, inputShape: dy.shape };
    return { x: run('DepthwiseConv2dNativeBackpropInput', { dy, filter: toHWC1(weight) }, settings) };
  },
});

/**
 * Convolution of each channel by itself, with weight (C, 1, h, w) and bias (C), padded to the same size. x (B, H, W, C) → the
 * same shape.
 */
export function frozenDepthwiseConv2d(x: tf.Tensor4D, weight: tf.Tensor, bias: tf.Tensor): tf.Tensor4D {
  return frozenDepthwiseConv2dOp({ x, weight, bias }) as tf.Tensor4D;
}

export const frozenLinearOp = defineOp({
  name: 'alitok.FrozenLinear',
  inputs: ['x', 'weight', 'bias?'],
  compose: ({ x, weight, bias }) => linearOp({ x, weight, bias }, { biased: bias !== undefined }),
  save: ['weight'],
  gradient: (dy, { weight }) => {
    const inputs = weight.shape[1] as number;
    return { x: tf.matMul(rows(dy), weight as tf.Tensor2D).reshape([...dy.shape.slice(0, -1), inputs]) };
  },
});

/** x·weightᵀ + bias, for x (…, in), weight (out, in), bias (out). Returns (…, out). */
export function frozenLinear<T extends tf.Tensor>(x: T, weight: tf.Tensor, bias?: tf.Tensor): T {
  return frozenLinearOp({ x, weight, bias }) as T;
}
