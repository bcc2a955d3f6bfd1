import * as tf from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import type { WasmBackend } from '../backend.js';
import { isFloat, register, registerFor } from './register.js';

/** The number of dimensions that the copy kernel takes. */
const RANK = 6;

/** Strides of a dense array, in elements. */
function denseStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
}

interface Strided {
  address: number;
  strides: readonly number[];
}

/**
 * Copies an array of `shape` from one set of strides to another. Neighbouring dimensions that both sides step through evenly
 * are merged, so that inner runs are as long as possible.
 */
export function copy({ pool }: WasmBackend, shape: readonly number[], from: Strided, to: Strided): void {
  const dims: { size: number; from: number; to: number }[] = [];
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const [f, t] = [from.strides[axis], to.strides[axis]];
    const last = dims.at(-1);
    if (last && last.from === size * f && last.to === size * t)
      dims[dims.length - 1] = { size: last.size * size, from: f, to: t };
    else dims.push({ size, from: f, to: t });
  });
  // The kernel's threads split the outer two dimensions, so the padding goes between those and the inner ones.
  const outer = dims.slice(0, Math.min(2, Math.max(0, dims.length - 1)));
  const inner = dims.slice(outer.length);
  const unit = { size: 1, from: 1, to: 1 };
  const padding = Array.from({ length: RANK - dims.length }, () => unit);
  const all =
    inner.length === 0
      ? Array.from({ length: RANK }, () => unit)
      : outer.length === 2
        ? [...outer, ...padding, ...inner]
        : [...padding.slice(0, 1), ...outer, ...padding.slice(1), ...inner];
  pool.run(
    'copy',
    sizeOf(shape),
    ...all.map((d) => d.size),
    from.address,
    ...all.map((d) => d.from),
    to.address,
    ...all.map((d) => d.to),
  );
}

/** Whether the copy kernel can handle x: at most six dimensions other than 1, and elements of four bytes. */
const fits = (x: tf.TensorInfo, shape = x.shape) =>
  x.dtype !== 'bool' &&
  x.dtype !== 'string' &&
  shape.filter((size) => size !== 1).length <= RANK &&
  sizeOf(shape) > 0;

function slice(
  backend: WasmBackend,
  x: tf.TensorInfo,
  begin: readonly number[],
  size: readonly number[],
): tf.TensorInfo {
  const out = backend.output(size, x.dtype);
  const strides = denseStrides(x.shape);
  const offset = begin.reduce((sum, start, axis) => sum + start * strides[axis], 0);
  const from = { address: backend.address(x) + offset * 4, strides };
  copy(backend, size, from, { address: backend.address(out), strides: denseStrides(size) });
  return out;
}

export function registerLayout(): void {
  // tfjs's own kernel copies the data, and every tensor that a gradient needs is cloned.
  register('Identity', ({ x }, _, backend) => {
    backend.incRef(x.dataId);
    return { dataId: x.dataId, shape: x.shape, dtype: x.dtype };
  });

  type Slice = { begin: number[]; size: number[] };
  const sliceOf = (x: tf.TensorInfo, { begin, size }: Slice) =>
    tf.slice_util.parseSliceParams(x as tf.Tensor, begin, size);
  registerFor<Slice>(
    'Slice',
    ({ x }, attributes) => fits(x, sliceOf(x, attributes)[1]),
    ({ x }, attributes, backend) => {
      const [begin, size] = sliceOf(x, attributes);
      tf.slice_util.assertParamsValid(x as tf.Tensor, begin, size);
      return slice(backend, x, begin, size);
    },
  );

  registerFor<{ axis: number }>(
    'Unpack',
    ({ value }) => fits(value),
    ({ value }, { axis: given }, backend) => {
      const axis = (given + value.shape.length) % value.shape.length;
      const size = value.shape.map((n, i) => (i === axis ? 1 : n));
      return Array.from({ length: value.shape[axis] }, (_, index) => {
        const begin = value.shape.map((_n, i) => (i === axis ? index : 0));
        const part = slice(backend, value, begin, size);
        return { ...part, shape: size.filter((_n, i) => i !== axis) };
      });
    },
  );

  registerFor<{ perm: number[] }>(
    'Transpose',
    ({ x }) => fits(x),
    ({ x }, { perm }, backend) => {
      const shape = perm.map((axis) => x.shape[axis]);
      const out = backend.output(shape, x.dtype);
      const strides = denseStrides(x.shape);
      const from = { address: backend.address(x), strides: perm.map((axis) => strides[axis]) };
      copy(backend, shape, from, { address: backend.address(out), strides: denseStrides(shape) });
      return out;
    },
  );

  const parts = (inputs: Record<string, tf.TensorInfo>) => Object.values(inputs);
  const alike = (inputs: Record<string, tf.TensorInfo>) => {
    const all = parts(inputs);
    return all.every((x) => fits(x) && x.dtype === all[0].dtype);
  };
  /** Concatenates tensors along one axis. */
  const concat = (
    backend: WasmBackend,
    tensors: { info: tf.TensorInfo; shape: number[] }[],
    axis: number,
    shape: number[],
  ) => {
    const out = backend.output(shape, tensors[0].info.dtype);
    const strides = denseStrides(shape);
    let offset = 0;
    for (const { info, shape: own } of tensors) {
      const to = { address: backend.address(out) + offset * strides[axis] * 4, strides };
      copy(backend, own, { address: backend.address(info), strides: denseStrides(own) }, to);
      offset += own[axis];
    }
    return out;
  };
  registerFor<{ axis: number }>('Concat', alike, (inputs, { axis: given }, backend) => {
    const tensors = parts(inputs);
    const axis = (given + tensors[0].shape.length) % tensors[0].shape.length;
    const shape = tf.backend_util.computeOutShape(
      tensors.map((x) => x.shape),
      axis,
    );
    return concat(
      backend,
      tensors.map((info) => ({ info, shape: info.shape })),
      axis,
      shape,
    );
  });
  registerFor<{ axis: number }>('Pack', alike, (inputs, { axis: given }, backend) => {
    const tensors = parts(inputs);
    const rank = tensors[0].shape.length + 1;
    const axis = (given + rank) % rank;
    const expanded = tensors.map((info) => ({ info, shape: info.shape.toSpliced(axis, 0, 1) }));
    return concat(backend, expanded, axis, tensors[0].shape.toSpliced(axis, 0, tensors.length));
  });

  type Pad = { paddings: [number, number][]; constantValue: number };
  registerFor<Pad>(
    'PadV2',
    ({ x }, { constantValue }) => fits(x) && constantValue === 0,
    ({ x }, { paddings }, backend) => {
      const shape = x.shape.map((n, axis) => n + paddings[axis][0] + paddings[axis][1]);
      const out = backend.output(shape, x.dtype);
      const start = backend.address(out);
      backend.pool.floats.fill(0, start / 4, start / 4 + sizeOf(shape));
      const strides = denseStrides(shape);
      const offset = paddings.reduce((sum, [before], axis) => sum + before * strides[axis], 0);
      const from = { address: backend.address(x), strides: denseStrides(x.shape) };
      copy(backend, x.shape, from, { address: start + offset * 4, strides });
      return out;
    },
  );

  type Sum = { axis: number | number[]; keepDims: boolean };
  /** The number of axes to sum over if they are the leading ones; otherwise 0. */
  const leading = (x: tf.TensorInfo, axis: number | number[]) => {
    const axes = tf.util.parseAxisParam(axis, x.shape).sort((a, b) => a - b);
    return axes.every((a, i) => a === i) && axes.length < x.shape.length ? axes.length : 0;
  };
  registerFor<Sum>(
    'Sum',
    ({ x }, { axis }) => isFloat(x) && leading(x, axis) > 0 && sizeOf(x.shape) > 0,
    ({ x }, { axis, keepDims }, backend) => {
      const count = leading(x, axis);
      const rest = x.shape.slice(count);
      const rows = sizeOf(x.shape.slice(0, count));
      const out = backend.output(keepDims ? [...new Array(count).fill(1), ...rest] : rest);
      const columns = sizeOf(rest);
      backend.pool.run('sumRows', rows * columns, rows, columns, backend.address(x), backend.address(out));
      return out;
    },
  );
}
