import { backend_util } from '@tensorflow/tfjs';

/** The attributes of tfjs's convolutions and poolings. */
export interface Window {
  strides: number | [number, number];
  pad: 'valid' | 'same' | number | backend_util.ExplicitPadding;
  dilations?: number | [number, number] | null;
  dimRoundingMode?: 'floor' | 'round' | 'ceil';
  dataFormat?: 'NHWC' | 'NCHW';
}

type Shape4D = [number, number, number, number];

/** The sizes of a convolution of images x (B, H, W, C) with a filter (h, w, in, out), or (h, w, C, multiplier) if depthwise. */
export function convolutionInfo(
  x: readonly number[],
  filter: readonly number[],
  { strides, pad, dilations, dimRoundingMode }: Window,
  depthwise = false,
): backend_util.Conv2DInfo {
  return backend_util.computeConv2DInfo(
    x as Shape4D,
    filter as Shape4D,
    strides,
    dilations ?? 1,
    pad,
    dimRoundingMode,
    depthwise,
  );
}

export type Pooling = Window & { filterSize: number | [number, number] };

/** The sizes of a pooling of images of a shape (B, H, W, C). */
export const poolingInfo = (
  shape: readonly number[],
  { filterSize, strides, pad, dimRoundingMode }: Pooling,
): backend_util.Conv2DInfo =>
  backend_util.computePool2DInfo(shape as Shape4D, filterSize, strides, 1, pad, dimRoundingMode);
