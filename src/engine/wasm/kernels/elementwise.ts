import * as tf from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import type { WasmBackend } from '../backend.js';
import { type Inputs, isFloat, register, registerFor } from './register.js';

const COST = 10;

type Clip = { clipValueMin: number; clipValueMax: number };

/** Replaces tfjs's kernels that lose NaN. */
function registerComparisons(): void {
  registerFor(
    'Relu',
    ({ x }) => isFloat(x),
    (inputs, _, backend) => elementwise(backend, 'relu', inputs),
  );
  registerFor(
    'Relu6',
    ({ x }) => isFloat(x),
    (inputs, _, backend) => elementwise(backend, 'clip', inputs, 0, 6),
  );
  registerFor<Clip>(
    'ClipByValue',
    ({ x }) => isFloat(x),
    (inputs, { clipValueMin, clipValueMax }, backend) =>
      elementwise(backend, 'clip', inputs, clipValueMin, clipValueMax),
  );
  for (const [name, kernel] of [
    ['Maximum', 'maximum'],
    ['Minimum', 'minimum'],
  ])
    registerFor(
      name,
      ({ a, b }) => isFloat(a) && isFloat(b),
      (inputs, _, backend) =>
        tf.tidy(() => {
          const { a, b } = inputs as Record<string, tf.Tensor>;
          const shape = tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape);
          const sameShape = (x: tf.Tensor) => (x.shape.join() === shape.join() ? x : x.broadcastTo(shape));
          const single = [b, a].find((x) => x.rank === 0);
          if (single) {
            const other = single === b ? a : b;
            return elementwise(backend, kernel, { other, single }, 1) as tf.Tensor;
          }
          return elementwise(backend, kernel, { a: sameShape(a), b: sameShape(b) }, 0) as tf.Tensor;
        }),
    );
  for (const [name, sign] of [
    ['ArgMax', 1],
    ['ArgMin', -1],
  ] as const)
    registerFor<{ axis: number }>(
      name,
      ({ x }, { axis }) => isFloat(x) && sizeOf(x.shape) > 0 && (axis === -1 || axis === x.shape.length - 1),
      ({ x }, _, backend) => {
        const n = x.shape[x.shape.length - 1];
        const y = backend.output(x.shape.slice(0, -1), 'int32');
        const rows = sizeOf(y.shape);
        backend.pool.run('argMax', rows * n, rows, n, backend.address(x), backend.address(y), sign);
        return y;
      },
    );

  // tfjs's own kernel keeps only the lowest byte of the integer part.
  registerFor<{ dtype: tf.DataType }>(
    'Cast',
    ({ x }, { dtype }) => dtype === 'bool' && ['float32', 'int32'].includes(x.dtype),
    ({ x }) => tf.tidy(() => tf.notEqual(x as tf.Tensor, tf.scalar(0, x.dtype))),
  );
}

/** Runs a kernel over all elements of inputs of one shape. */
function elementwise(backend: WasmBackend, kernel: string, inputs: Inputs, ...rest: number[]): tf.TensorInfo {
  const tensors = Object.values(inputs);
  const n = sizeOf(tensors[0].shape);
  const y = backend.output(tensors[0].shape);
  const addresses = [...tensors, y].map((tensor) => backend.address(tensor));
  backend.pool.run(kernel, n, n, ...addresses, ...rest);
  return y;
}

/** Operations that tfjs's own kernels compute one element at a time, and those that it lacks. */
export function registerElementwise(): void {
  registerComparisons();
  for (const [name, kernel] of [
    ['Exp', 'exponential'],
    ['Sigmoid', 'sigmoid'],
  ])
    registerFor(
      name,
      ({ x }) => isFloat(x),
      ({ x }, _, backend) => {
        const n = sizeOf(x.shape);
        const y = backend.output(x.shape);
        backend.pool.run(kernel, n * COST, n, backend.address(x), backend.address(y));
        return y;
      },
    );

  registerFor<{ dim: number }>(
    'Softmax',
    ({ logits }, { dim }) => isFloat(logits) && (dim === -1 || dim === logits.shape.length - 1),
    ({ logits }, _, backend) => {
      const n = logits.shape[logits.shape.length - 1];
      const rows = sizeOf(logits.shape) / n;
      const y = backend.output(logits.shape);
      backend.pool.run('softmax', rows * n * COST, rows, n, backend.address(logits), backend.address(y));
      return y;
    },
  );

  register<{ numSegments: number }>('UnsortedSegmentSum', ({ x, segmentIds }, { numSegments }, backend) => {
    const rows = segmentIds.shape[0];
    const d = sizeOf(x.shape.slice(1));
    const out = backend.output([numSegments, ...x.shape.slice(1)], x.dtype);
    const addresses = [backend.address(x), backend.address(segmentIds), backend.address(out)];
    backend.pool.run('embeddingGrad', (rows + numSegments) * d, rows, d, numSegments, ...addresses);
    return out;
  });

  register<{ equation: string }>('Einsum', (inputs, { equation }) => {
    const tensors = Object.values(inputs) as tf.Tensor[];
    return tf.tidy(() => einsum(equation, tensors));
  });
}

/** Multiplies aligned, broadcast tensors, then sums over the letters that the result lacks. */
function einsum(equation: string, tensors: tf.Tensor[]): tf.Tensor {
  const { allDims, summedDims, idDims } = tf.backend_util.decodeEinsumEquation(equation, tensors.length);
  tf.backend_util.checkEinsumDimSizes(allDims.length, idDims, tensors);
  const aligned = tensors.map((x, i) => {
    // Axes in the order of allDims, with size 1 where this tensor has no such letter.
    const order = idDims[i].map((dim, axis) => ({ dim, axis })).sort((a, b) => a.dim - b.dim);
    const shape = allDims.map((_, dim) => {
      const own = order.find((entry) => entry.dim === dim);
      return own ? x.shape[own.axis] : 1;
    });
    return x.transpose(order.map(({ axis }) => axis)).reshape(shape);
  });
  const product = aligned.reduce((a, b) => a.mul(b));
  return summedDims.length > 0 ? product.sum(summedDims) : product;
}
