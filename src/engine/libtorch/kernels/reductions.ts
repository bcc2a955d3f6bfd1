import type { TensorInfo } from '@tensorflow/tfjs';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { type Kernel, register } from './register.js';

type Axes = { axis?: number | number[]; keepDims?: boolean };

/** The axes as a list of non-negative numbers; all axes by default. */
function axesOf(x: TensorInfo, axis: Axes['axis']): number[] {
  if (axis === undefined || axis === null) return x.shape.map((_, i) => i);
  return (Array.isArray(axis) ? axis : [axis]).map((a) => (a < 0 ? a + x.shape.length : a));
}

/** A reduction whose operator takes a list of axes; over no axis it is the tensor itself. */
function overAxes(
  name: string,
  run: (x: TensorInfo, axes: number[], keep: boolean, kernel: Kernel) => TensorInfo,
): void {
  register<Axes>(name, ({ x }, { axis, keepDims = false }, kernel) => {
    const axes = axesOf(x, axis);
    return axes.length === 0 ? kernel.backend.alias(x) : run(x, axes, keepDims, kernel);
  });
}

export function registerReductions(): void {
  overAxes('Sum', (x, axes, keep, { either, out }) => {
    const dtype = x.dtype === 'float32' ? 'float32' : 'int32';
    const type = dtype === 'float32' ? ScalarType.float32 : ScalarType.int32;
    return out(dtype, 'sum.dim_IntList', either(x), axes, keep, type); // sums bfloat16 in `type`, too
  });
  overAxes('Mean', (x, axes, keep, { id, out }) =>
    out('float32', 'mean.dim', id(x), axes, keep, ScalarType.float32),
  );
  // tfjs has another name for the axes of this kernel.
  register<{ reductionIndices?: number | number[]; keepDims?: boolean }>(
    'Max',
    ({ x }, { reductionIndices, keepDims = false }, { id, out, backend }) => {
      const axes = axesOf(x, reductionIndices);
      return axes.length === 0 ? backend.alias(x) : out(x.dtype, 'amax', id(x), axes, keepDims);
    },
  );
  overAxes('Min', (x, axes, keep, { id, out }) => out(x.dtype, 'amin', id(x), axes, keep));

  /** Operators that take one axis at a time, applied from the last to the first. */
  const oneByOne = (name: string, operator: string, dtype: (x: TensorInfo) => TensorInfo['dtype']) =>
    overAxes(name, (x, axes, keep, { id, use, out, backend }) => {
      const sorted = [...axes].sort((a, b) => b - a);
      const reduced = sorted.reduce((value, axis) => use(operator, value, axis, keep), id(x));
      const type = dtype(x);
      return out(type, 'to.dtype', reduced, backend.scalarType(type), false, true);
    });
  oneByOne('Prod', 'prod.dim_int', (x) => (x.dtype === 'float32' ? 'float32' : 'int32'));
  oneByOne('All', 'all.dim', () => 'bool');
  oneByOne('Any', 'any.dim', () => 'bool');

  for (const [name, operator] of [
    ['ArgMax', 'argmax'],
    ['ArgMin', 'argmin'],
  ])
    register<{ axis: number }>(name, ({ x }, { axis }, { id, use, out }) => {
      const numbers = x.dtype === 'bool' ? use('to.dtype', id(x), ScalarType.int32) : id(x);
      return out('int32', 'to.dtype', use(operator, numbers, axesOf(x, axis)[0]), ScalarType.int32);
    });

  for (const [name, operator] of [
    ['Cumsum', 'cumsum'],
    ['Cumprod', 'cumprod'],
  ])
    register<{ axis: number; exclusive: boolean; reverse: boolean }>(
      name,
      ({ x }, { axis, exclusive, reverse }, { id, use, out, backend }) => {
        const [along] = axesOf(x, axis);
        const turned = reverse ? use('flip', id(x), [along]) : id(x);
        let total = use(operator, turned, along, backend.scalarType(x.dtype));
        if (exclusive) {
          const edge = [...x.shape];
          edge[along] = 1;
          const start = use(
            'full',
            edge,
            name === 'Cumsum' ? 0 : 1,
            backend.scalarType(x.dtype),
            null,
            backend.device,
          );
          const before = use('narrow', total, along, 0, x.shape[along] - 1);
          total = use('cat', [start, before], along);
        }
        return reverse ? out(x.dtype, 'flip', total, [along]) : out(x.dtype, 'clone', total);
      },
    );

  register<{ dim: number }>('Softmax', ({ logits }, { dim }, { id, out }) =>
    out('float32', '_softmax', id(logits), dim, false),
  );
  register<{ axis: number }>('LogSoftmax', ({ logits }, { axis }, { id, out }) =>
    out('float32', '_log_softmax', id(logits), axis, false),
  );
  register<{ k: number }>('TopK', ({ x }, { k }, { id, use, drop, backend, out }) => {
    // The first of equal values must come first, which PyTorch's topk does not guarantee.
    const [values, indices] = (backend.call('sort.stable', id(x), true, -1, true) as TensorId[]).map(drop);
    const first = (sorted: TensorId) => use('narrow', sorted, -1, 0, k);
    return [out(x.dtype, 'clone', first(values)), out('int32', 'to.dtype', first(indices), ScalarType.int32)];
  });
}
