import { backend_util, type TensorInfo } from '@tensorflow/tfjs';
import { LeftToHost } from '../../host/kernels.js';
import { convolutionInfo, type Pooling, poolingInfo, type Window } from '../../ops/window.js';
import { int, text } from '../backend.js';
import type { Attribute } from '../binding.js';
import { leaveToHost, register } from './register.js';

/** TensorFlow's attributes of a convolution of images `x` (B, H, W, C) with a filter of shape (h, w, in, out). */
function convolution(x: readonly number[], filter: readonly number[], window: Window): Attribute[] {
  if (window.dataFormat === 'NCHW') throw new LeftToHost();
  const info = convolutionInfo(x, filter, window);
  const { type, top, bottom, left, right } = info.padInfo;
  const given = type === 'VALID' || type === 'SAME';
  return [
    int('strides', [1, info.strideHeight, info.strideWidth, 1]),
    int('dilations', [1, info.dilationHeight, info.dilationWidth, 1]),
    text('padding', given ? type : 'EXPLICIT'),
    ...(given ? [] : [int('explicit_paddings', [0, 0, top, bottom, left, right, 0, 0])]),
  ];
}

// tfjs-node's kernels take no padding that is a number, and their gradients no explicit padding either.
function registerConvolutions(): void {
  register<Window>('Conv2D', ({ x, filter }, window, { handle, use, out }) =>
    out(use('Conv2D', [handle(x), handle(filter)], convolution(x.shape, filter.shape, window))),
  );
  register<Window & { inputShape: number[] }>('Conv2DBackpropInput', ({ dy, filter }, window, kernel) => {
    const { handle, use, ints, out } = kernel;
    const inputs = [ints(window.inputShape), handle(filter), handle(dy)];
    try {
      return out(use('Conv2DBackpropInput', inputs, convolution(window.inputShape, filter.shape, window)));
    } catch (error) {
      // oneDNN does not support some windows that are larger than the image.
      if (/could not create a primitive/.test((error as Error).message)) throw new LeftToHost();
      throw error;
    }
  });
  register<Window & { filterShape: number[] }>('Conv2DBackpropFilter', ({ x, dy }, window, kernel) => {
    const { handle, use, ints, out } = kernel;
    const inputs = [handle(x), ints(window.filterShape), handle(dy)];
    return out(use('Conv2DBackpropFilter', inputs, convolution(x.shape, window.filterShape, window)));
  });
  leaveToHost<Window>('FusedConv2D', (_, { dataFormat }) => dataFormat === 'NCHW');
}

/** TensorFlow's attributes of a pooling of images x (B, H, W, C). Integers, and other padding than its own, are left to tfjs. */
function pooling(x: TensorInfo, window: Pooling): Attribute[] {
  const info = poolingInfo(x.shape, window);
  if (x.dtype !== 'float32' || isUnusual(info)) throw new LeftToHost();
  return [
    int('ksize', [1, info.filterHeight, info.filterWidth, 1]),
    int('strides', [1, info.strideHeight, info.strideWidth, 1]),
    text('padding', info.padInfo.type),
  ];
}

/** Whether a pooling has padding that TensorFlow lacks, or an empty result. */
const isUnusual = ({ outShape, padInfo }: { outShape: number[]; padInfo: { type: string } }): boolean =>
  !['SAME', 'VALID'].includes(padInfo.type) || outShape.some((n) => n <= 0);

function registerPooling(): void {
  register<Pooling>('AvgPool', ({ x }, attributes, { handle, use, out }) =>
    out(use('AvgPool', [handle(x)], pooling(x, attributes))),
  );
  register<Pooling>('AvgPoolGrad', ({ dy, input }, attributes, { handle, use, ints, out }) =>
    out(use('AvgPoolGrad', [ints(input.shape), handle(dy)], pooling(input, attributes))),
  );
  // TensorFlow's MaxPool ignores NaN. The mean of a window is NaN if one of its values is, and is computed as fast. It is also
  // NaN for infinities of both signs, where the model has diverged as well.
  register<Pooling>('MaxPool', ({ x }, attributes, kernel) => {
    const { handle, use, last, out } = kernel;
    const window = pooling(x, attributes);
    const mean = use('AvgPool', [handle(x)], window);
    const y = use('MaxPool', [handle(x)], window);
    return out(last('SelectV2', [use('IsNan', [mean]), mean, y]));
  });
  // The gradient goes to a window's first largest value, or to NaN.
  register<Pooling>('MaxPoolGrad', ({ dy, input, output }, attributes, kernel) => {
    const { handle, use, last, number, out } = kernel;
    const x = handle(input);
    const comparable = last('SelectV2', [use('IsNan', [x]), number(Number.POSITIVE_INFINITY), x]);
    return out(last('MaxPoolGrad', [comparable, handle(output), handle(dy)], pooling(input, attributes)));
  });
  type Size3D = number | [number, number, number];
  type Pooling3D = { filterSize: Size3D; strides: Size3D } & {
    pad: 'valid' | 'same' | number;
    dimRoundingMode?: Pooling['dimRoundingMode'];
  };
  for (const name of ['AvgPool3D', 'MaxPool3D'])
    leaveToHost<Pooling3D>(name, ({ x }, { filterSize, strides, pad, dimRoundingMode }) => {
      const shape = x.shape as [number, number, number, number, number];
      return isUnusual(backend_util.computePool3DInfo(shape, filterSize, strides, 1, pad, dimRoundingMode));
    });
}

export function registerConvolution(): void {
  registerConvolutions();
  registerPooling();
}
