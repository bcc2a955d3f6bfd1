import type * as tf from '@tensorflow/tfjs';
import { backend_util, util } from '@tensorflow/tfjs';
import { int, Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { type Kernel, leaveToHost, register } from './register.js';

const INT32 = [type('output_type', Type.int32)];

/** The first index of the largest value along an axis, or of the smallest; NaN exceeds both, as in PyTorch. */
export function indexOf(name: 'ArgMax' | 'ArgMin', kernel: Kernel, x: Handle, axis = -1): Handle {
  const { use, cast, ints } = kernel;
  const values = x.dtype === Type.bool ? cast(x, Type.int32) : x;
  const numbers = use(name, [values, ints(axis)], INT32);
  if (x.dtype !== Type.float32) return numbers;
  const nan = use('IsNan', [x]);
  const first = use('ArgMax', [nan, ints(axis)], INT32);
  return use('SelectV2', [use('Any', [nan, ints([axis])]), first, numbers]);
}

function registerArg(name: 'ArgMax' | 'ArgMin'): void {
  register<{ axis: number }>(name, ({ x }, { axis }, kernel) => {
    const [along] = util.parseAxisParam(axis, x.shape);
    return kernel.out(indexOf(name, kernel, kernel.handle(x), along));
  });
}

function registerGather(): void {
  type Gather = { axis: number; batchDims: number };
  // tfjs-node's kernel reads the indices to check them, which TensorFlow does itself.
  register<Gather>('GatherV2', ({ x, indices }, { axis, batchDims }, { handle, use, ints, out }) => {
    const [along] = util.parseAxisParam(axis, x.shape);
    backend_util.segment_util.collectGatherOpShapeInfo(
      x as tf.Tensor,
      indices as tf.Tensor,
      along,
      batchDims,
    );
    return out(use('GatherV2', [handle(x), handle(indices), ints(along)], [int('batch_dims', batchDims)]));
  });
  register<{ shape: number[] }>('ScatterNd', ({ indices, updates }, { shape }, kernel) => {
    const { handle, use, reshape, ints, out } = kernel;
    // A list of indices is one of index vectors of length 1.
    const vectors =
      indices.shape.length === 1 && updates.shape.length > 0
        ? reshape(handle(indices), [indices.shape[0], 1])
        : handle(indices);
    return out(use('ScatterNd', [vectors, handle(updates), ints(shape)]));
  });
}

/** Operations that choose among values. */
export function registerSelection(): void {
  registerArg('ArgMax');
  registerArg('ArgMin');
  registerGather();
  type Multinomial = { numSamples: number; seed: number; normalized: boolean };
  // TensorFlow's Multinomial goes on from call to call.
  register<Multinomial>('Multinomial', ({ logits }, { numSamples, seed, normalized }, kernel) => {
    const { handle, use, ints, changingInts, out } = kernel;
    const weights = normalized ? use('Log', [handle(logits)]) : handle(logits);
    const state = changingInts([Math.trunc(seed), Math.trunc((seed % 1) * 2 ** 31)]);
    const type32 = [type('output_dtype', Type.int32)];
    return out(use('StatelessMultinomial', [weights, ints(numSamples), state], type32));
  });
  const isFloat = ({ x }: Record<string, tf.TensorInfo>) => x.dtype === 'float32';
  leaveToHost('Unique', isFloat); // TensorFlow tells one NaN from another
  leaveToHost('Diag', ({ x }) => x.dtype === 'bool');
}
