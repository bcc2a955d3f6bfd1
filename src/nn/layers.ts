import * as tf from '@tensorflow/tfjs';
import * as ops from '../engine/ops/index.js';
import { fanIn, type Initializer, ones, zeros } from './initializers.js';
import { adapt, type Lora } from './lora.js';
import type { Scope } from './parameters.js';

/** A layer: its parameters are declared once under their checkpoint names, then it maps tensors to tensors. */
export type Layer<T extends tf.Tensor = tf.Tensor> = (x: T) => T;

/** Applies layers in order; each intermediate result is freed as soon as the next layer has read it. */
export function sequence<T extends tf.Tensor>(...layers: Layer<T>[]): Layer<T> {
  return (x) =>
    layers.reduce((h, layer) => {
      const next = tf.tidy(() => layer(h));
      if (h !== x) h.dispose();
      return next;
    }, x);
}

interface LinearOptions {
  init: Initializer;
  bias?: boolean;
  /** The weight's shape in the checkpoint where that is a convolution's, such as (outputs, inputs, 1, 1). */
  shape?: number[];
  /** Adds a low-rank adapter. */
  lora?: Lora;
}

/** x (…, inputs) → (…, outputs). The weight's elements are in the order of (outputs, inputs). */
export function linear(
  scope: Scope,
  inputs: number,
  outputs: number,
  { init, bias = true, shape = [outputs, inputs], lora }: LinearOptions,
): Layer {
  const weight = scope.parameter('weight', shape, init);
  const offset = bias ? scope.parameter('bias', [outputs], zeros) : undefined;
  const matrix = () => (shape.length === 2 ? weight.value : weight.value.reshape([outputs, inputs]));
  const layer: Layer = (x) => {
    if (weight.packed) return ops.packedLinear(x, weight.packed, offset?.value);
    const frozen = weight.frozen && (offset?.frozen ?? true);
    return (frozen ? ops.frozenLinear : ops.linear)(x, matrix(), offset?.value);
  };
  return lora ? adapt(layer, scope, { inputs, outputs, ...lora }) : layer;
}

/** `rounds`: only layers read the result, so an engine may round it to the precision of their products. */
type NormOptions = { rounds?: boolean };

/** LayerNorm over the last dimension, epsilon 1e-5. */
export function layerNorm(scope: Scope, width: number, options: NormOptions = {}): Layer {
  const weight = scope.parameter('weight', [width], ones);
  const bias = scope.parameter('bias', [width], zeros);
  return (x) => ops.layerNorm(x, weight.value, bias.value, options);
}

/** RMSNorm over the last dimension, epsilon 1e-5. */
export function rmsNorm(scope: Scope, width: number, options: NormOptions = {}): Layer {
  const weight = scope.parameter('weight', [width], ones);
  return (x) => ops.rmsNorm(x, weight.value, options);
}

/** GroupNorm over channels, epsilon 1e-5: (B, H, W, C) → the same. */
export function groupNorm(scope: Scope, channels: number, groups: number): Layer<tf.Tensor4D> {
  const weight = scope.parameter('weight', [channels], ones);
  const bias = scope.parameter('bias', [channels], zeros);
  return (x) => ops.groupNorm(x, weight.value, bias.value, groups);
}

/** PyTorch's convolution weight (out, in, h, w) as tfjs wants it: (h, w, in, out). */
export function toHWIO(weight: tf.Tensor): tf.Tensor4D {
  return tf.transpose(weight as tf.Tensor4D, [2, 3, 1, 0]);
}

/** "Same" convolution as TensorFlow pads it: (B, H, W, inputs) → (B, ⌈H/stride⌉, ⌈W/stride⌉, outputs). */
export function conv2d(
  scope: Scope,
  inputs: number,
  outputs: number,
  size: number,
  { stride = 1, init = fanIn(inputs * size * size) }: { stride?: number; init?: Initializer } = {},
): Layer<tf.Tensor4D> {
  const weight = scope.parameter('weight', [outputs, inputs, size, size], init);
  const bias = scope.parameter('bias', [outputs], fanIn(inputs * size * size));
  return (x) => tf.conv2d(x, toHWIO(weight.value), stride, 'same').add(bias.value);
}
