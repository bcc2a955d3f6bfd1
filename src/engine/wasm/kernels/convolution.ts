import type * as tf from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import { convolutionInfo, type Pooling, poolingInfo, type Window } from '../../ops/window.js';
import type { WasmBackend } from '../backend.js';
import { dense, matmul } from './matmul.js';
import { type Inputs, isFloat, register, registerFor } from './register.js';

type Info = tf.backend_util.Conv2DInfo;

/** The most memory that patches take at a time; images are processed in groups that fit. */
const COLUMN_BYTES = 64 * 2 ** 20;

/** A convolution's sizes in the kernels' order: input, output, filter, strides, dilations and padding. */
function geometry(conv: Info): number[] {
  return [
    ...[conv.inHeight, conv.inWidth, conv.inChannels, conv.outHeight, conv.outWidth],
    ...[conv.filterHeight, conv.filterWidth, conv.strideHeight, conv.strideWidth],
    ...[conv.dilationHeight, conv.dilationWidth, conv.padInfo.top, conv.padInfo.left],
  ];
}

/** Calls `each` for groups of images, with memory for their patches (rows, kh·kw·inChannels). */
function inGroups(
  backend: WasmBackend,
  conv: Info,
  each: (group: { first: number; images: number; rows: number; columns: number }) => void,
): void {
  const patch = conv.filterHeight * conv.filterWidth * conv.inChannels;
  const pixels = conv.outHeight * conv.outWidth;
  const most = Math.min(conv.batchSize, Math.max(1, Math.floor(COLUMN_BYTES / (pixels * patch * 4))));
  const columns = backend.allocate(most * pixels * patch * 4);
  for (let first = 0; first < conv.batchSize; first += most) {
    const images = Math.min(most, conv.batchSize - first);
    each({ first, images, rows: images * pixels, columns });
  }
  backend.free(columns);
}

const inputBytes = (conv: Info) => conv.inHeight * conv.inWidth * conv.inChannels * 4;
const outputBytes = (conv: Info) => conv.outHeight * conv.outWidth * conv.outChannels * 4;

function toColumns(
  backend: WasmBackend,
  conv: Info,
  x: number,
  first: number,
  images: number,
  columns: number,
): void {
  const patch = conv.filterHeight * conv.filterWidth * conv.inChannels;
  const work = images * conv.outHeight * conv.outWidth * patch;
  backend.pool.run('toColumns', work, images, ...geometry(conv), x + first * inputBytes(conv), columns);
}

const patchOf = (conv: Info) => conv.filterHeight * conv.filterWidth * conv.inChannels;

/** Whether every patch is one pixel, in order, so that the images are their own patches. */
function isPointwise(conv: Info): boolean {
  const { filterHeight, filterWidth, strideHeight, strideWidth, outHeight, outWidth, inHeight, inWidth } =
    conv;
  const single = filterHeight * filterWidth * strideHeight * strideWidth === 1;
  return single && outHeight === inHeight && outWidth === inWidth;
}

/** x ∗ filter, plus a bias of the output's channels if there is one. */
function convolve(
  { x, filter, bias }: Inputs,
  attributes: Window,
  backend: WasmBackend,
): { out: tf.TensorInfo; at: number } {
  const conv = convolutionInfo(x.shape, filter.shape, attributes);
  const out = backend.output(conv.outShape);
  const [xAt, wAt, at] = [x, filter, out].map((tensor) => backend.address(tensor));
  const patch = patchOf(conv);
  const weights = dense(wAt, patch, conv.outChannels);
  const add = { bias: bias ? backend.address(bias) : 0 };
  const multiply = (columns: number, rows: number, to: number) =>
    matmul(backend, [1, rows, conv.outChannels, patch], dense(columns, rows, patch), weights, to, add);
  if (isPointwise(conv)) multiply(xAt, conv.batchSize * conv.outHeight * conv.outWidth, at);
  else
    inGroups(backend, conv, ({ first, images, rows, columns }) => {
      toColumns(backend, conv, xAt, first, images, columns);
      multiply(columns, rows, at + first * outputBytes(conv));
    });
  return { out, at };
}

interface FusedAttributes extends Window {
  activation?: string | null;
}

export function registerConvolution(): void {
  registerFor<Window>(
    'Conv2D',
    ({ x, filter }, { dataFormat }) => isFloat(x) && isFloat(filter) && dataFormat === 'NHWC',
    (inputs, attributes, backend) => convolve(inputs, attributes, backend).out,
  );

  registerFor<FusedAttributes>(
    'FusedConv2D',
    ({ x, filter, bias }, { dataFormat, activation }) =>
      isFloat(x) &&
      isFloat(filter) &&
      dataFormat === 'NHWC' &&
      (!bias || sizeOf(bias.shape) === filter.shape[3]) &&
      ['linear', 'relu'].includes(activation ?? 'linear'),
    (inputs, attributes, backend) => {
      const { out, at } = convolve(inputs, attributes, backend);
      const n = sizeOf(out.shape);
      if (attributes.activation === 'relu') backend.pool.run('relu', n, n, at, at);
      return out;
    },
  );
  registerFor<Window & { inputShape: number[] }>(
    'Conv2DBackpropInput',
    (_, { dataFormat }) => dataFormat === 'NHWC',
    ({ dy, filter }, attributes, backend) => {
      const conv = convolutionInfo(attributes.inputShape, filter.shape, attributes);
      const dx = backend.output(conv.inShape);
      const [dyAt, wAt, dxAt] = [dy, filter, dx].map((tensor) => backend.address(tensor));
      const patch = patchOf(conv);
      const multiply = (at: number, rows: number, to: number) => {
        const sizes: [number, number, number, number] = [1, rows, patch, conv.outChannels];
        const weights = dense(wAt, patch, conv.outChannels, true);
        matmul(backend, sizes, dense(at, rows, conv.outChannels), weights, to);
      };
      if (isPointwise(conv)) multiply(dyAt, conv.batchSize * conv.outHeight * conv.outWidth, dxAt);
      else
        inGroups(backend, conv, ({ first, images, rows, columns }) => {
          multiply(dyAt + first * outputBytes(conv), rows, columns);
          const to = dxAt + first * inputBytes(conv);
          backend.pool.run('fromColumns', rows * patch, images, ...geometry(conv), columns, to);
        });
      return dx;
    },
  );

  register<Window & { filterShape: number[] }>('Conv2DBackpropFilter', ({ x, dy }, attributes, backend) => {
    const conv = convolutionInfo(x.shape, attributes.filterShape, attributes);
    const dw = backend.output(conv.filterShape);
    const [xAt, dyAt, dwAt] = [x, dy, dw].map((tensor) => backend.address(tensor));
    const patch = patchOf(conv);
    inGroups(backend, conv, ({ first, images, rows, columns }) => {
      toColumns(backend, conv, xAt, first, images, columns);
      const sizes: [number, number, number, number] = [1, patch, conv.outChannels, rows];
      const gradient = dense(dyAt + first * outputBytes(conv), rows, conv.outChannels);
      matmul(backend, sizes, dense(columns, rows, patch, true), gradient, dwAt, { accumulate: first > 0 });
    });
    return dw;
  });

  registerFor<Window>(
    'DepthwiseConv2dNative',
    ({ x, filter }, { dataFormat = 'NHWC' }) =>
      isFloat(x) && isFloat(filter) && dataFormat === 'NHWC' && filter.shape[3] === 1,
    ({ x, filter }, attributes, backend) => {
      const conv = convolutionInfo(x.shape, filter.shape, attributes, true);
      const out = backend.output(conv.outShape);
      const work = sizeOf(out.shape) * conv.filterHeight * conv.filterWidth;
      const addresses = [x, filter, out].map((tensor) => backend.address(tensor));
      backend.pool.run('depthwise', work, conv.batchSize, ...geometry(conv), ...addresses);
      return out;
    },
  );

  /** `geometry` of a depthwise convolution, with the multiplier after the channels. */
  const withMultiplier = (conv: Info, multiplier: number) => geometry(conv).toSpliced(3, 0, multiplier);
  register<Window & { inputShape: number[] }>(
    'DepthwiseConv2dNativeBackpropInput',
    ({ dy, filter }, attributes, backend) => {
      const conv = convolutionInfo(attributes.inputShape, filter.shape, attributes, true);
      const dx = backend.output(conv.inShape);
      const work = sizeOf(dy.shape) * conv.filterHeight * conv.filterWidth;
      const addresses = [dy, filter, dx].map((tensor) => backend.address(tensor));
      const sizes = withMultiplier(conv, filter.shape[3]);
      backend.pool.run('depthwiseGradInput', work, conv.batchSize, ...sizes, ...addresses);
      return dx;
    },
  );
  register<Window & { filterShape: number[] }>(
    'DepthwiseConv2dNativeBackpropFilter',
    ({ x, dy }, attributes, backend) => {
      const { filterShape } = attributes;
      const conv = convolutionInfo(x.shape, filterShape, attributes, true);
      const dfilter = backend.output(filterShape);
      const work = sizeOf(dy.shape) * conv.filterHeight * conv.filterWidth;
      const addresses = [x, dy, dfilter].map((tensor) => backend.address(tensor));
      const sizes = withMultiplier(conv, filterShape[3]);
      backend.pool.run('depthwiseGradFilter', work, conv.batchSize, ...sizes, ...addresses);
      return dfilter;
    },
  );

  // tfjs's own kernels lose NaN, and their gradient is wrong where the windows do not tile the input.
  for (const [name, kernel] of [
    ['MaxPool', 'maxPool'],
    ['AvgPool', 'avgPool'],
  ])
    registerFor<Pooling>(
      name,
      ({ x }) => isFloat(x),
      ({ x }, attributes, backend) => {
        const pool = poolingInfo(x.shape, attributes);
        const y = backend.output(pool.outShape);
        const work = sizeOf(y.shape) * pool.filterHeight * pool.filterWidth;
        const addresses = [x, y].map((tensor) => backend.address(tensor));
        backend.pool.run(kernel, work, pool.batchSize, ...geometry(pool), ...addresses);
        return y;
      },
    );
  register<Pooling>('MaxPoolGrad', ({ dy, input }, attributes, backend) => {
    const pool = poolingInfo(input.shape, attributes);
    const dx = backend.output(input.shape);
    const work = sizeOf(dy.shape) * pool.filterHeight * pool.filterWidth;
    const addresses = [dy, input, dx].map((tensor) => backend.address(tensor));
    backend.pool.run('maxPoolGrad', work, pool.batchSize, ...geometry(pool), ...addresses);
    return dx;
  });
}
