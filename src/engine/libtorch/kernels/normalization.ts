import type { TensorInfo } from '@tensorflow/tfjs';
import { groupNormOp, layerNormOp, rmsNormOp } from '../../ops/normalization.js';
import type { TensorId } from '../bridge.js';
import { asGiven, givesHalf, ours, outEither, outGiven, ownCuda } from './products.js';
import { implement, type Kernel, OWN, PYTORCH } from './register.js';

/** (…, d) → (rows, d), a view. */
function rowsOf({ id, use }: Kernel, x: TensorInfo): TensorId {
  return x.shape.length === 2 ? id(x) : use('reshape', id(x), [-1, x.shape.at(-1)!]);
}

/** LayerNorm, RMSNorm and GroupNorm. */
export function registerNormalization(): void {
  implement(
    layerNormOp,
    { cpu: 'pytorch', cuda: 'own' },
    ({ x, weight, bias }, { epsilon, rounds }, kernel) => {
      const { id, out } = kernel;
      if (!ownCuda(kernel))
        return out('float32', 'layer_norm', id(x), weight.shape, id(weight), id(bias), epsilon);
      const half = givesHalf(kernel, x, rounds);
      const inputs = [asGiven(kernel, x), id(weight), id(bias)];
      return outEither(kernel, half, 'alitok::layer_norm', ...inputs, epsilon, half);
    },
  );
  implement(
    layerNormOp.backward,
    { cpu: 'pytorch', cuda: 'own' },
    ({ dy, x, weight }, { epsilon }, kernel) => {
      const { id, backend, drop } = kernel;
      if (ownCuda(kernel)) {
        const inputs = [asGiven(kernel, dy), asGiven(kernel, x), id(weight)];
        const [dx, ...others] = backend.call('alitok::layer_norm_grad', ...inputs, epsilon) as TensorId[];
        return [outGiven(kernel, x, dx), ...others.map((gradient) => backend.wrap(gradient, 'float32'))];
      }
      const [y, mean, rstd] = backend.call('native_layer_norm', id(x), weight.shape, null, null, epsilon);
      drop(y);
      const scale = id(weight);
      const statistics = [drop(mean), drop(rstd)];
      const gradients = backend.call(
        'native_layer_norm_backward',
        id(dy),
        id(x),
        weight.shape,
        ...statistics,
        scale,
        scale, // stands for the bias, of which only the presence matters
        [true, true, true],
      ) as TensorId[];
      return gradients.map((gradient) => backend.wrap(gradient, 'float32'));
    },
  );

  /** x·rstd and rstd = 1/√(mean(x²) + ε) over the last dimension. */
  const rms = ({ use }: Kernel, x: TensorId, epsilon: number) => {
    const meanSquare = use('mean.dim', use('square', x), [-1], true);
    const rstd = use('rsqrt', use('add.Scalar', meanSquare, epsilon));
    return { normalized: use('mul.Tensor', x, rstd), rstd };
  };
  implement(rmsNormOp, OWN, ({ x, weight }, { epsilon, rounds }, kernel) => {
    const { id, out } = kernel;
    const half = givesHalf(kernel, x, rounds);
    if (ours(kernel))
      return outEither(kernel, half, 'alitok::rms_norm', asGiven(kernel, x), id(weight), epsilon, half);
    return out('float32', 'mul.Tensor', rms(kernel, id(x), epsilon).normalized, id(weight));
  });
  implement(rmsNormOp.backward, OWN, ({ dy, x, weight }, { epsilon }, kernel) => {
    const { id, use, out, backend } = kernel;
    if (ours(kernel)) {
      const inputs = [asGiven(kernel, dy), asGiven(kernel, x), id(weight)];
      const [dx, dweight] = backend.call('alitok::rms_norm_grad', ...inputs, epsilon) as TensorId[];
      return [outGiven(kernel, x, dx), backend.wrap(dweight, 'float32')];
    }
    const [xRows, dyRows] = [rowsOf(kernel, x), rowsOf(kernel, dy)];
    const { normalized, rstd } = rms(kernel, xRows, epsilon);
    const g = use('mul.Tensor', dyRows, id(weight));
    const along = use('mul.Tensor', use('mean.dim', use('mul.Tensor', g, xRows), [-1], true), rstd);
    const across = use('sub.Tensor', g, use('mul.Tensor', normalized, along));
    const dx = use('mul.Tensor', across, rstd);
    return [
      out('float32', 'reshape', dx, x.shape),
      out('float32', 'sum.dim_IntList', use('mul.Tensor', dyRows, normalized), [0]),
    ];
  });

  const channelsFirst = ({ id, use }: Kernel, x: TensorInfo) =>
    use('contiguous', use('permute', id(x), [0, 3, 1, 2]));
  const sizes = ([batch, height, width, channels]: readonly number[]) => [batch, channels, height * width];
  implement(groupNormOp, PYTORCH, ({ x, weight, bias }, { groups, epsilon }, kernel) => {
    const { id, drop, out, backend } = kernel;
    const input = channelsFirst(kernel, x);
    const results = backend.call(
      'native_group_norm',
      input,
      id(weight),
      id(bias),
      ...sizes(x.shape),
      groups,
      epsilon,
    );
    for (const result of results) drop(result);
    return out('float32', 'permute', results[0], [0, 2, 3, 1]);
  });
  implement(groupNormOp.backward, PYTORCH, ({ dy, x, weight }, { groups, epsilon }, kernel) => {
    const { id, drop, out, backend } = kernel;
    const [input, gradient] = [channelsFirst(kernel, x), channelsFirst(kernel, dy)];
    const forward = backend.call(
      'native_group_norm',
      input,
      id(weight),
      null,
      ...sizes(x.shape),
      groups,
      epsilon,
    );
    const [, mean, rstd] = (forward as TensorId[]).map(drop);
    const [dx, dweight, dbias] = backend.call(
      'native_group_norm_backward',
      gradient,
      input,
      mean,
      rstd,
      id(weight),
      ...sizes(x.shape),
      groups,
      [true, true, true],
    );
    return [
      out('float32', 'permute', drop(dx), [0, 2, 3, 1]),
      backend.wrap(dweight, 'float32'),
      backend.wrap(dbias, 'float32'),
    ];
  });
}
