import * as tf from '@tensorflow/tfjs';

/** A kernel's inputs and result as tfjs passes them. */
export type Inputs = Record<string, tf.TensorInfo>;
export type Result = tf.TensorInfo | tf.TensorInfo[];

// The long tail: operations that the models never use (strings, complex numbers, ragged and sparse tensors, …) are
// computed by tfjs's own JavaScript kernels, on copies in host memory. Engines over a native library share them.

/** Types whose values stay in JavaScript. */
export const isHostType = (dtype: unknown): boolean => dtype === 'string' || dtype === 'complex64';

const cpu = () => tf.engine().findBackend('cpu') as tf.KernelBackend;

function runOnCpu(name: string, inputs: Inputs, attrs: tf.NamedAttrMap | undefined): Result {
  return tf
    .getKernel(name, 'cpu')
    .kernelFunc({ inputs: inputs as tf.NamedTensorInfoMap, attrs, backend: cpu() });
}

/** A copy of a tensor on tfjs's `cpu` backend. */
function copyToHost(backend: tf.KernelBackend, { dataId, shape, dtype }: tf.TensorInfo): tf.TensorInfo {
  const values = backend.readSync(dataId);
  const write = (part: tf.backend_util.BackendValues, type: tf.DataType) => ({
    dataId: cpu().write(part, shape, type),
    shape,
    dtype: type,
  });
  if (dtype !== 'complex64') return write(values, dtype);
  const { real, imag } = tf.backend_util.splitRealAndImagArrays(values as Float32Array);
  return runOnCpu(
    'Complex',
    { real: write(real, 'float32'), imag: write(imag, 'float32') },
    {},
  ) as tf.TensorInfo;
}

/** Thrown by a kernel to have tfjs's own run instead, for options that a library lacks and the models never use. */
export class LeftToHost extends Error {}

type Copied = tf.TensorInfo & { rank: number };

/** Runs the JavaScript kernel that tfjs has under a name, on tensors of this engine. */
export function runOnHost(
  name: string,
  backend: tf.KernelBackend,
  inputs: Inputs,
  attrs: tf.NamedAttrMap | undefined,
): Result {
  const copies: Copied[] = [];
  const copy = (tensor: tf.TensorInfo): Copied => {
    const copied = { ...copyToHost(backend, tensor), rank: tensor.shape.length };
    copies.push(copied);
    return copied;
  };
  // The inputs may be a list, and so may a single input.
  const copyAll = (value: unknown): unknown =>
    Array.isArray(value) ? value.map(copyAll) : value && copy(value as tf.TensorInfo);
  const given = Array.isArray(inputs)
    ? copyAll(inputs)
    : Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, copyAll(value)]));
  const result = runOnCpu(name, given as Inputs, attrs);
  const results = Array.isArray(result) ? result : [result];
  const moved = results.map(({ dataId, shape, dtype }) => {
    const values = cpu().readSync(dataId);
    return { dataId: backend.write(values, shape, dtype), shape, dtype };
  });
  for (const { dataId } of [...copies, ...results]) cpu().disposeData(dataId, true);
  return Array.isArray(result) ? moved : moved[0];
}

/** Registers tfjs's JavaScript kernels for all operations that an engine has no kernel for. */
export function registerHost(backendName: string): void {
  for (const { kernelName } of tf.getKernelsForBackend('cpu')) {
    if (tf.getKernel(kernelName, backendName)) continue;
    tf.registerKernel({
      kernelName,
      backendName,
      kernelFunc: ({ inputs, attrs, backend }) =>
        runOnHost(kernelName, backend as tf.KernelBackend, inputs as Inputs, attrs as tf.NamedAttrMap),
    });
  }
}
