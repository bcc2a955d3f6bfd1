import * as tf from '@tensorflow/tfjs';
import type { InputsOf, Operation, ResultOf } from '../../ops/define.js';
import type { WasmBackend } from '../backend.js';

export type Inputs = Record<string, tf.TensorInfo>;
export type Result = tf.TensorInfo | tf.TensorInfo[];

/** Registers our kernel of an operation of tfjs for `wasm`, instead of tfjs's own if it has one. */
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

/** Like `register`, for the cases that `covers` accepts; tfjs's own kernel handles the others. */
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

/** Registers our kernel of an operation of the vocabulary for `wasm`. */
export function implement<N extends string, A extends object, R extends tf.Tensor | tf.Tensor[]>(
  { kernelName }: Pick<Operation<N, A, R>, 'kernelName' | 'inputs' | 'compose'>,
  run: (inputs: InputsOf<N, tf.TensorInfo>, attributes: A, backend: WasmBackend) => ResultOf<R>,
): void {
  register<A>(kernelName, run as unknown as (inputs: Inputs, attributes: A, backend: WasmBackend) => Result);
}

export const isFloat = ({ dtype }: tf.TensorInfo) => dtype === 'float32';
