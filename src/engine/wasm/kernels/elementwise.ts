import * as tf from '@tensorflow/tfjs';
import { isFloat, register, registerFor, sizeOf } from './register.js';

const COST = 10;

/** tfjs operations that its own kernels compute one element at a time, and those it lacks. */
export function registerElementwise(): void {
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

/** Products of aligned, broadcast tensors, then the sum over the letters that the result lacks. */
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
