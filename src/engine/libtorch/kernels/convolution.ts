import type { TensorInfo } from '@tensorflow/tfjs';
import { LeftToHost } from '../../host/kernels.js';
import { frozenConv2dOp } from '../../ops/frozen.js';
import { convolutionInfo, type Pooling, type Window } from '../../ops/window.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { fusedOutput } from './matmul.js';
import { rounded } from './products.js';
import { implement, type Kernel, PYTORCH, register } from './register.js';

// In tfjs images are (B, H, W, C) and filters (h, w, in, out); in PyTorch (B, C, H, W) and (out, in, h, w). A
// permuted view is PyTorch's own "channels last" layout, so nothing is copied for it.

const toNCHW = ({ use }: Kernel, x: TensorId) => use('permute', x, [0, 3, 1, 2]);
const toOIHW = ({ use }: Kernel, filter: TensorId) => use('permute', filter, [3, 2, 0, 1]);

function geometry(x: readonly number[], filter: readonly number[], window: Window, depthwise = false) {
  if (window.dataFormat === 'NCHW') throw new LeftToHost();
  const info = convolutionInfo(x, filter, window, depthwise);
  const { top, bottom, left, right } = info.padInfo;
  return {
    info,
    stride: [info.strideHeight, info.strideWidth],
    dilation: [info.dilationHeight, info.dilationWidth],
    /** Whether both sides are padded alike, which PyTorch can do itself. */
    even: top === bottom && left === right,
    padding: [top, left],
    /** For constant_pad_nd, the last dimension first. */
    sides: [left, right, top, bottom],
  };
}
type Geometry = ReturnType<typeof geometry>;

/** x (NCHW), padded here if "same" padding is larger at the end; otherwise the convolution pads. */
function padded({ use }: Kernel, x: TensorId, { even, sides }: Geometry): TensorId {
  return even ? x : use('constant_pad_nd', x, sides, 0);
}
const paddingOf = ({ even, padding }: Geometry) => (even ? padding : [0, 0]);

/** A depthwise filter (h, w, C, m) as PyTorch's grouped convolution takes it: (C·m, 1, h, w). */
function grouped(
  { use }: Kernel,
  filter: TensorId,
  [height, width, channels, multiplier]: readonly number[],
) {
  return use('reshape', use('permute', filter, [2, 3, 0, 1]), [channels * multiplier, 1, height, width]);
}

function convolve(
  kernel: Kernel,
  x: TensorInfo,
  filter: TensorInfo,
  window: Window,
  depthwise: boolean,
  bias: TensorId | null = null,
): TensorId {
  const { id, use } = kernel;
  const g = geometry(x.shape, filter.shape, window, depthwise);
  const cast = (tensor: TensorId) => rounded(kernel, tensor);
  const weight = cast(depthwise ? grouped(kernel, id(filter), filter.shape) : toOIHW(kernel, id(filter)));
  const input = cast(padded(kernel, toNCHW(kernel, id(x)), g));
  const groups = depthwise ? x.shape[3] : 1;
  const y = use(
    'convolution',
    input,
    weight,
    bias,
    g.stride,
    paddingOf(g),
    g.dilation,
    false,
    [0, 0],
    groups,
  );
  return use('to.dtype', use('permute', y, [0, 2, 3, 1]), ScalarType.float32);
}

/** The gradient of a convolution by its input (`wanted` 0) or its filter (1), in PyTorch's layout. */
function convolutionGradient(
  kernel: Kernel,
  dy: TensorId,
  x: TensorId,
  weight: TensorId,
  g: Geometry,
  groups: number,
  wanted: 0 | 1,
): TensorId {
  const { backend, drop, use } = kernel;
  const mask = [wanted === 0, wanted === 1, false];
  const padding = paddingOf(g);
  const operands = [...[toNCHW(kernel, dy), x, weight].map((tensor) => rounded(kernel, tensor)), null];
  const settings = [g.stride, padding, g.dilation, false, [0, 0], groups, mask];
  try {
    const results = backend.call('convolution_backward', ...operands, ...settings) as TensorId[];
    return use('to.dtype', drop(results[wanted]), ScalarType.float32);
  } catch (error) {
    // oneDNN does not support some windows that are larger than the image.
    if (/could not create/.test((error as Error).message)) throw new LeftToHost();
    throw error;
  }
}

function gradientByInput(
  kernel: Kernel,
  dy: TensorInfo,
  filter: TensorInfo,
  shape: number[],
  window: Window,
  depthwise: boolean,
) {
  const { id, use, out, backend } = kernel;
  const g = geometry(shape, filter.shape, window, depthwise);
  const [batch, height, width, channels] = shape;
  const [left, right, top, bottom] = g.even ? [0, 0, 0, 0] : g.sides;
  const input = use(
    'empty.memory_format',
    [batch, channels, height + top + bottom, width + left + right],
    backend.scalarType('float32'),
    null,
    backend.device,
  );
  const weight = depthwise ? grouped(kernel, id(filter), filter.shape) : toOIHW(kernel, id(filter));
  let dx = convolutionGradient(kernel, id(dy), input, weight, g, depthwise ? channels : 1, 0);
  if (!g.even) dx = use('narrow', use('narrow', dx, 2, top, height), 3, left, width);
  return out('float32', 'permute', dx, [0, 2, 3, 1]);
}

function gradientByFilter(
  kernel: Kernel,
  dy: TensorInfo,
  x: TensorInfo,
  shape: number[],
  window: Window,
  depthwise: boolean,
) {
  const { id, use, out, backend } = kernel;
  const g = geometry(x.shape, shape, window, depthwise);
  const [height, width, inputs, outputs] = shape;
  const weightShape = depthwise ? [inputs * outputs, 1, height, width] : [outputs, inputs, height, width];
  const weight = use('empty.memory_format', weightShape, backend.scalarType('float32'), null, backend.device);
  const input = padded(kernel, toNCHW(kernel, id(x)), g);
  const dw = convolutionGradient(kernel, id(dy), input, weight, g, depthwise ? inputs : 1, 1);
  if (!depthwise) return out('float32', 'permute', dw, [2, 3, 1, 0]);
  return out('float32', 'permute', use('reshape', dw, [inputs, outputs, height, width]), [2, 3, 0, 1]);
}

function registerConvolutions(): void {
  for (const [name, depthwise] of [
    ['Conv2D', false],
    ['DepthwiseConv2dNative', true],
  ] as const)
    register<Window>(name, ({ x, filter }, window, kernel) =>
      kernel.out('float32', 'alias', convolve(kernel, x, filter, window, depthwise)),
    );
  // The weight has PyTorch's layout; the convolution adds the bias in the same pass over memory.
  implement(frozenConv2dOp, PYTORCH, ({ x, weight, bias }, { stride, same, relu }, kernel) => {
    const { id, use, out } = kernel;
    const [outputs, inputs, height, width] = weight.shape;
    const window: Window = { strides: [stride, stride], pad: same ? 'same' : 'valid' };
    const g = geometry(x.shape, [height, width, inputs, outputs], window);
    const [input, filter, offset] = [
      padded(kernel, toNCHW(kernel, id(x)), g),
      id(weight),
      bias && id(bias),
    ].map((tensor) => (tensor === undefined ? null : rounded(kernel, tensor)));
    const settings = [g.stride, paddingOf(g), g.dilation, false, [0, 0], 1];
    const y = use('convolution', input, filter, offset, ...settings);
    const result = use('to.dtype', use('permute', y, [0, 2, 3, 1]), ScalarType.float32);
    return out('float32', relu ? 'relu' : 'alias', result);
  });
  implement(frozenConv2dOp.backward, PYTORCH, ({ dy, y }, _, { id, out }) =>
    out('float32', 'threshold_backward', id(dy), id(y), 0),
  );

  type Fused = Window & { activation?: string; leakyreluAlpha: number };
  for (const [name, depthwise] of [
    ['FusedConv2D', false],
    ['FusedDepthwiseConv2D', true],
  ] as const)
    register<Fused>(name, (inputs, attributes, kernel) => {
      const y = convolve(kernel, inputs.x, inputs.filter, attributes, depthwise);
      return fusedOutput(kernel, y, inputs, attributes);
    });
  register<Window & { inputShape: number[] }>('Conv2DBackpropInput', ({ dy, filter }, a, kernel) =>
    gradientByInput(kernel, dy, filter, a.inputShape, a, false),
  );
  register<Window & { filterShape: number[] }>('Conv2DBackpropFilter', ({ x, dy }, a, kernel) =>
    gradientByFilter(kernel, dy, x, a.filterShape, a, false),
  );
  register<Window & { inputShape: number[] }>(
    'DepthwiseConv2dNativeBackpropInput',
    ({ dy, filter }, a, kernel) => gradientByInput(kernel, dy, filter, a.inputShape, a, true),
  );
  register<Window & { filterShape: number[] }>(
    'DepthwiseConv2dNativeBackpropFilter',
    ({ x, dy }, a, kernel) => gradientByFilter(kernel, dy, x, a.filterShape, a, true),
  );
}

function poolGeometry(shape: readonly number[], { filterSize, strides, pad, dimRoundingMode }: Pooling) {
  const [height, width] = Array.isArray(filterSize) ? filterSize : [filterSize, filterSize];
  // Explicit padding, and padding as large as the window, are left to tfjs.
  const outside = Array.isArray(pad) || (typeof pad === 'number' && pad >= Math.min(height, width));
  if (outside || (dimRoundingMode && dimRoundingMode !== 'floor')) throw new LeftToHost();
  const window = { strides, pad, dimRoundingMode };
  return { ...geometry(shape, [height, width, shape[3], shape[3]], window), size: [height, width] };
}

/** Whether PyTorch can pad: alike on both sides, and at most half a window. */
const centred = ({ even, padding, size }: ReturnType<typeof poolGeometry>): boolean =>
  even && padding.every((n, axis) => 2 * n <= size[axis]);

function registerPooling(): void {
  /** x (NCHW) padded with −∞, which is never the largest. */
  const fenced = ({ use }: Kernel, x: TensorId, { sides }: Geometry) =>
    sides.some((n) => n > 0) ? use('constant_pad_nd', x, sides, Number.NEGATIVE_INFINITY) : x;

  register<Pooling>('MaxPool', ({ x }, attributes, kernel) => {
    const { id, use, out } = kernel;
    const g = poolGeometry(x.shape, attributes);
    const images = toNCHW(kernel, id(x));
    const y = centred(g)
      ? use('max_pool2d', images, g.size, g.stride, g.padding)
      : use('max_pool2d', fenced(kernel, images, g), g.size, g.stride);
    return out('float32', 'permute', y, [0, 2, 3, 1]);
  });
  register<Pooling>('MaxPoolGrad', ({ dy, input }, attributes, kernel) => {
    const { id, use, out, drop, backend } = kernel;
    const g = poolGeometry(input.shape, attributes);
    const x = use('contiguous', fenced(kernel, toNCHW(kernel, id(input)), g));
    const [y, indices] = backend.call('max_pool2d_with_indices', x, g.size, g.stride) as TensorId[];
    drop(y);
    const gradient = use('contiguous', toNCHW(kernel, id(dy)));
    const operator = 'max_pool2d_with_indices_backward';
    const dx = use(operator, gradient, x, g.size, g.stride, [0, 0], [1, 1], false, drop(indices));
    const [left, , top] = g.sides;
    const inside = use('narrow', use('narrow', dx, 2, top, input.shape[1]), 3, left, input.shape[2]);
    return out('float32', 'permute', inside, [0, 2, 3, 1]);
  });

  /** The number of real pixels in each window, (1, 1, H, W): tfjs does not count padding. */
  const covered = (
    { use, backend }: Kernel,
    shape: readonly number[],
    g: ReturnType<typeof poolGeometry>,
  ) => {
    const ones = use('ones', [1, 1, shape[1], shape[2]], backend.scalarType('float32'), null, backend.device);
    const framed = use('constant_pad_nd', ones, g.sides, 0);
    return use('avg_pool2d', framed, g.size, g.stride, [0, 0], false, true, 1);
  };
  register<Pooling>('AvgPool', ({ x }, attributes, kernel) => {
    const { id, use, out } = kernel;
    const g = poolGeometry(x.shape, attributes);
    if (centred(g)) {
      const means = use('avg_pool2d', toNCHW(kernel, id(x)), g.size, g.stride, g.padding, false, false, null);
      return out('float32', 'permute', means, [0, 2, 3, 1]);
    }
    const framed = use('constant_pad_nd', toNCHW(kernel, id(x)), g.sides, 0);
    const sums = use('avg_pool2d', framed, g.size, g.stride, [0, 0], false, true, 1);
    return out('float32', 'permute', use('div.Tensor', sums, covered(kernel, x.shape, g)), [0, 2, 3, 1]);
  });
  register<Pooling>('AvgPoolGrad', ({ dy, input }, attributes, kernel) => {
    const { id, use, out, backend } = kernel;
    const g = poolGeometry(input.shape, attributes);
    const [left, right, top, bottom] = g.sides;
    const [batch, height, width, channels] = input.shape;
    const shape = [batch, channels, height + top + bottom, width + left + right];
    const x = use('empty.memory_format', shape, backend.scalarType('float32'), null, backend.device);
    const share = use('div.Tensor', toNCHW(kernel, id(dy)), covered(kernel, input.shape, g));
    const dx = use('avg_pool2d_backward', share, x, g.size, g.stride, [0, 0], false, true, 1);
    const inside = use('narrow', use('narrow', dx, 2, top, height), 3, left, width);
    return out('float32', 'permute', inside, [0, 2, 3, 1]);
  });
}

function registerResizing(): void {
  type Resize = { alignCorners: boolean; halfPixelCenters: boolean; size: [number, number] };
  register<Resize>('ResizeBilinear', ({ images }, { alignCorners, halfPixelCenters, size }, kernel) => {
    const { id, use, out } = kernel;
    const x = use('to.dtype', toNCHW(kernel, id(images)), 6);
    const [height, width] = images.shape.slice(1, 3);
    if (!alignCorners && !halfPixelCenters && (height !== size[0] || width !== size[1]))
      throw new LeftToHost();
    const y = use('upsample_bilinear2d', x, size, alignCorners);
    return out('float32', 'permute', y, [0, 2, 3, 1]);
  });
}

export function registerConvolution(): void {
  registerConvolutions();
  registerPooling();
  registerResizing();
}
