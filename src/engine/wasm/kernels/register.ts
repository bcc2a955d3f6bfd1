import * as tf from '@tensorflow/tfjs';
import type { WasmBackend } from '../backend.js';

export type Inputs = Record<string, tf.TensorInfo>;
export type Result = tf.TensorInfo | tf.TensorInfo[];

/** Registers our kernel for `wasm`, in the place of tfjs's own if there is one. */
export function register<A = object>(
  name: string,
  run: (inputs: Inputs, attributes: A, backend: WasmBackend) => Result,
  original?: tf.KernelConfig,
): void {
  if (tf.getKernel(name, 'wasm')) tf.unregisterKernel(name, 'wasm');
  tf.registerKernel({
    kernelName: name,
    backendName: 'wasm',
    setupFunc: original?.setupFunc, // looks up the kernel in tfjs's module
    kernelFunc: ({ inputs, attrs, backend }) =>
      run(inputs as Inputs, attrs as unknown as A, backend as unknown as WasmBackend),
  });
}

/** Like `register`, for cases that `covers` accepts; the others go to tfjs's own kernel. */
export function registerFor<A = object>(
  name: string,
  covers: (inputs: Inputs, attributes: A) => boolean,
  run: (inputs: Inputs, attributes: A, backend: WasmBackend) => Result,
): void {
  const original = tf.getKernel(name, 'wasm');
  const either: typeof run = (inputs, attributes, backend) =>
    covers(inputs, attributes)
      ? run(inputs, attributes, backend)
      : (original.kernelFunc({ inputs, attrs: attributes as never, backend }) as Result);
  register<A>(name, either, original);
}

export const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

export const isFloat = ({ dtype }: tf.TensorInfo) => dtype === 'float32';
