import { backend_util, type DataType, slice_util, type TensorInfo, util } from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { type Kernel, register } from './register.js';

/** A view of x that begins at `begin` and has `size` along each axis. */
function sliced({ use }: Kernel, x: TensorId, begin: number[], size: number[], shape: number[]): TensorId {
  return begin.reduce(
    (value, start, axis) =>
      start === 0 && size[axis] === shape[axis] ? value : use('narrow', value, axis, start, size[axis]),
    x,
  );
}

/** Index vectors (…, depth) into the first axes of `shape`, as flat int64 row numbers. */
function flatRows(
  { use, id }: Kernel,
  indices: TensorInfo,
  depth: number,
  shape: readonly number[],
): TensorId {
  const vectors = use('reshape', id(indices), [-1, depth]);
  const columns = Array.from({ length: depth }, (_, i) => use('select.int', vectors, -1, i));
  const row = columns.reduce((total, column, i) =>
    use('add.Tensor', use('mul.Scalar', total, shape[i]), column),
  );
  return use('to.dtype', use('reshape', row, [-1]), ScalarType.int64);
}

function registerViews(): void {
  register<{ shape: number[] }>('Reshape', ({ x }, { shape }, { either, backend }) => {
    const size = sizeOf(x.shape);
    const inferred = shape.indexOf(-1);
    const full = inferred < 0 ? shape : shape.with(inferred, -size / sizeOf(shape));
    return backend.wrapLike(x, backend.call('reshape', either(x), full), full);
  });
  register<{ dim: number }>('ExpandDims', ({ input }, { dim }, { either, outLike }) =>
    outLike(input, 'unsqueeze', either(input), dim),
  );
  register<{ perm: number[] }>('Transpose', ({ x }, { perm }, { either, outLike }) =>
    outLike(x, 'permute', either(x), perm),
  );
  register<{ begin: number | number[]; size: number | number[] }>('Slice', ({ x }, attributes, kernel) => {
    const [begin, size] = slice_util.parseSliceParams(x as never, attributes.begin, attributes.size);
    slice_util.assertParamsValid(x as never, begin, size);
    const { either, backend } = kernel;
    const view = sliced(kernel, either(x), begin, size, x.shape);
    return backend.wrapLike(x, backend.call('alias', view), size);
  });
  type Strided = Record<'begin' | 'end' | 'strides', number[]> &
    Record<'beginMask' | 'endMask' | 'ellipsisMask' | 'newAxisMask' | 'shrinkAxisMask', number>;
  register<Strided>('StridedSlice', ({ x }, a, kernel) => {
    const info = slice_util.sliceInfo(
      x.shape,
      a.begin,
      a.end,
      a.strides,
      a.beginMask,
      a.endMask,
      a.ellipsisMask,
      a.newAxisMask,
      a.shrinkAxisMask,
    );
    const { use, out, outLike, id, either } = kernel;
    if (info.sliceDim0 || info.isSimpleSlice) {
      const size = slice_util.computeOutShape(info.begin, info.end, info.strides);
      return outLike(x, 'reshape', sliced(kernel, either(x), info.begin, size, x.shape), info.finalShape);
    }
    let value = id(x);
    info.strides.forEach((stride, axis) => {
      const length = slice_util.computeOutShape([info.begin[axis]], [info.end[axis]], [stride])[0];
      const positions = Int32Array.from({ length }, (_, i) => info.begin[axis] + i * stride);
      const index = kernel.drop(kernel.backend.native.fromArray(positions, [length], kernel.backend.device));
      value = use('index_select', value, axis, index);
    });
    return out(x.dtype, 'reshape', value, info.finalShape);
  });
  register<{ axis: number; numOrSizeSplits: number | number[] }>('SplitV', ({ x }, attributes, kernel) => {
    const axis = attributes.axis < 0 ? attributes.axis + x.shape.length : attributes.axis;
    const sizes = backend_util.prepareSplitSize(x as never, attributes.numOrSizeSplits, axis);
    const { either, backend } = kernel;
    const parts = backend.call('split_with_sizes', either(x), sizes, axis) as TensorId[];
    return parts.map((part, i) => backend.wrapLike(x, part, x.shape.with(axis, sizes[i])));
  });
  register<{ axis: number }>('Unpack', ({ value }, { axis }, { either, backend }) => {
    const along = axis < 0 ? axis + value.shape.length : axis;
    const shape = value.shape.toSpliced(along, 1);
    const parts = backend.call('unbind.int', either(value), along) as TensorId[];
    return parts.map((part) => backend.wrapLike(value, part, shape));
  });
  register<{ shape: number[] }>('BroadcastTo', ({ x }, { shape }, { id, out }) =>
    out(x.dtype, 'expand', id(x), shape),
  );
}

function registerCopies(): void {
  register<{ axis: number }>('Concat', (inputs, { axis }, { id, either, out, outHalf, backend }) => {
    const tensors = Object.values(inputs);
    const along = axis < 0 ? axis + tensors[0].shape.length : axis;
    if (tensors.every((x) => backend.isHalf(x))) return outHalf('cat', tensors.map(either), along);
    return out(tensors[0].dtype, 'cat', tensors.map(id), along);
  });
  register<{ axis: number }>('Pack', (inputs, { axis }, { id, either, out, outHalf, backend }) => {
    const tensors = Object.values(inputs);
    for (const { shape, dtype } of tensors) {
      util.assertShapesMatch(
        tensors[0].shape,
        shape,
        'All tensors passed to stack must have matching shapes',
      );
      util.assert(tensors[0].dtype === dtype, () => 'All tensors passed to stack must have matching dtypes');
    }
    if (tensors.every((x) => backend.isHalf(x))) return outHalf('stack', tensors.map(either), axis);
    return out(tensors[0].dtype, 'stack', tensors.map(id), axis);
  });
  register<{ reps: number[] }>('Tile', ({ x }, { reps }, { id, out }) => out(x.dtype, 'repeat', id(x), reps));
  register<{ dims?: number | number[] }>('Reverse', ({ x }, { dims }, { id, out }) =>
    out(x.dtype, 'flip', id(x), util.parseAxisParam(dims as number | number[], x.shape)),
  );
  type Padding = { paddings: [number, number][] };
  register<Padding & { constantValue: number }>('PadV2', ({ x }, { paddings, constantValue }, { id, out }) =>
    out(x.dtype, 'constant_pad_nd', id(x), [...paddings].reverse().flat(), constantValue),
  );
  register<Padding & { mode: 'reflect' | 'symmetric' }>('MirrorPad', ({ x }, { paddings, mode }, kernel) => {
    const { id, use, out, backend, drop } = kernel;
    let value = id(x);
    paddings.forEach(([before, after], axis) => {
      const n = x.shape[axis];
      const skip = mode === 'reflect' ? 0 : 1; // `symmetric` repeats the edge as well
      const mirrored = (i: number) => (i < 0 ? -i - skip : i >= n ? 2 * n - 2 - i + skip : i);
      const positions = Int32Array.from({ length: before + n + after }, (_, i) => mirrored(i - before));
      const index = drop(backend.native.fromArray(positions, [positions.length], backend.device));
      value = use('index_select', value, axis, index);
    });
    return out(x.dtype, 'clone', value);
  });
}

function registerCreation(): void {
  register<{ shape: number[]; value: number; dtype: DataType }>(
    'Fill',
    (_, { shape, value, dtype }, { out, backend }) =>
      out(dtype, 'full', shape, value, backend.scalarType(dtype), null, backend.device),
  );
  register<{ start: number; stop: number; num: number }>(
    'LinSpace',
    (_, { start, stop, num }, { out, backend }) =>
      out('float32', 'linspace', start, stop, num, ScalarType.float32, null, backend.device),
  );
  register<{ depth: number; onValue: number; offValue: number; dtype: DataType }>(
    'OneHot',
    ({ indices }, { depth, onValue, offValue, dtype }, { id, use, out, backend }) => {
      const classes = use('arange', depth, ScalarType.int32, null, backend.device);
      const hit = use('eq.Tensor', use('unsqueeze', id(indices), -1), classes);
      const on = use('full', [], onValue, backend.scalarType(dtype), null, backend.device);
      const off = use('full', [], offValue, backend.scalarType(dtype), null, backend.device);
      return out(dtype, 'where.self', hit, on, off);
    },
  );
}

function registerIndexing(): void {
  register<{ axis: number; batchDims: number }>('GatherV2', ({ x, indices }, { axis, batchDims }, kernel) => {
    const { id, use, out } = kernel;
    const along = axis < 0 ? axis + x.shape.length : axis;
    backend_util.segment_util.collectGatherOpShapeInfo(x as never, indices as never, along, batchDims); // its errors
    const index = use('reshape', id(indices), [-1]);
    if (batchDims === 0) {
      const shape = [...x.shape.slice(0, along), ...indices.shape, ...x.shape.slice(along + 1)];
      return out(x.dtype, 'reshape', use('index_select', id(x), along, index), shape);
    }
    // Batch dimensions are merged into one, and `gather` looks up each item's rows in that item.
    const batch = sizeOf(x.shape.slice(0, batchDims));
    const outer = x.shape.slice(batchDims, along);
    const [rows, inner] = [x.shape[along], x.shape.slice(along + 1)];
    const perItem = indices.shape.slice(batchDims);
    const table = use('reshape', id(x), [batch, sizeOf(outer), rows, sizeOf(inner)]);
    const wanted = use(
      'to.dtype',
      use('reshape', id(indices), [batch, 1, sizeOf(perItem), 1]),
      ScalarType.int64,
    );
    const full = use('expand', wanted, [batch, sizeOf(outer), sizeOf(perItem), sizeOf(inner)]);
    const shape = [...x.shape.slice(0, batchDims), ...outer, ...perItem, ...inner];
    return out(x.dtype, 'reshape', use('gather', table, 2, full), shape);
  });
  register('GatherNd', ({ params, indices }, _, kernel) => {
    const { id, use, out } = kernel;
    const depth = indices.shape.at(-1)!;
    const inner = params.shape.slice(depth);
    const table = use('reshape', id(params), [sizeOf(params.shape.slice(0, depth)), ...inner]);
    const rows = use('index_select', table, 0, flatRows(kernel, indices, depth, params.shape));
    return out(params.dtype, 'reshape', rows, [...indices.shape.slice(0, -1), ...inner]);
  });
  register<{ shape: number[] }>('ScatterNd', ({ indices, updates }, { shape }, kernel) => {
    const { id, use, out, backend } = kernel;
    const { sliceRank: depth } = backend_util.calculateShapes(updates as never, indices as never, shape);
    const rows = sizeOf(shape.slice(0, depth));
    const inner = shape.slice(depth);
    const zeros = use('zeros', [rows, ...inner], backend.scalarType(updates.dtype), null, backend.device);
    const index = flatRows(kernel, indices, depth, shape);
    const added = use('index_add', zeros, 0, index, use('reshape', id(updates), [-1, ...inner]));
    return out(updates.dtype, 'reshape', added, shape);
  });
  register<{ numSegments: number }>('UnsortedSegmentSum', ({ x, segmentIds }, { numSegments }, kernel) => {
    const { id, use, out, backend } = kernel;
    const inner = x.shape.slice(segmentIds.shape.length);
    // Rows with a negative segment go into an extra segment, which is dropped.
    const shape = [numSegments + 1, ...inner];
    const zeros = use('zeros', shape, backend.scalarType(x.dtype), null, backend.device);
    const segments = use('reshape', id(segmentIds), [-1]);
    const index = use('masked_fill.Scalar', segments, use('lt.Scalar', segments, 0), numSegments);
    const sums = use('index_add', zeros, 0, index, use('reshape', id(x), [-1, ...inner]));
    return out(x.dtype, 'narrow', sums, 0, 0, numSegments);
  });
  for (const name of ['Bincount', 'DenseBincount'])
    register<{ size: number; binaryOutput?: boolean }>(
      name,
      ({ x, weights }, { size, binaryOutput }, kernel) => {
        const { id, use, out, backend } = kernel;
        const weighted = weights && sizeOf(weights.shape) > 0;
        const dtype = weighted ? weights.dtype : 'int32';
        const type = backend.scalarType(dtype);
        const count = (values: TensorId, weightsOf: TensorId | null) => {
          const inside = use('lt.Scalar', values, size);
          const kept = use('masked_select', values, inside);
          const index = use('to.dtype', kept, ScalarType.int64);
          const ones =
            weightsOf === null ? use('ones_like', kept, type) : use('masked_select', weightsOf, inside);
          const total = use('index_add', use('zeros', [size], type, null, backend.device), 0, index, ones);
          return binaryOutput ? use('to.dtype', use('ne.Scalar', total, 0), type) : total;
        };
        // Only DenseBincount counts row by row.
        if (x.shape.length < 2 || name === 'Bincount')
          return out(dtype, 'clone', count(id(x), weighted ? id(weights) : null));
        const rows = Array.from({ length: x.shape[0] }, (_, i) =>
          count(use('select.int', id(x), 0, i), weighted ? use('select.int', id(weights), 0, i) : null),
        );
        return out(dtype, 'stack', rows);
      },
    );
}

export function registerLayout(): void {
  registerViews();
  registerCopies();
  registerCreation();
  registerIndexing();
}
