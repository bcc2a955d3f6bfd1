import { sizeOf } from '../../../shapes.js';
import { dropoutOp } from '../../ops/dropout.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { asGiven, givesHalf, ours, outEither } from './products.js';
import { implement, type Kernel, OWN } from './register.js';

/** 1/(1−rate) where an element is kept and 0 where it is dropped, decided by the hash that all engines share. */
export function dropoutFactors(
  { use, backend }: Kernel,
  size: number,
  rate: number,
  seed: number,
  shape: number[],
): TensorId {
  // In place, so that it needs no more memory than the tensor has, in 32-bit integers, whose products wrap as the hash requires.
  const h = use('arange', size, ScalarType.int32, null, backend.device);
  const mix = (shift: number) => {
    const high = use('bitwise_right_shift.Tensor_Scalar', h, shift); // arithmetic: it repeats the sign
    use('bitwise_xor_.Tensor', h, use('bitwise_and_.Scalar', high, 2 ** (32 - shift) - 1));
  };
  use('add_.Scalar', h, Math.imul(seed, 0x9e3779b1));
  mix(16);
  use('mul_.Scalar', h, 0x85ebca6b | 0);
  mix(13);
  use('mul_.Scalar', h, 0xc2b2ae35 | 0);
  mix(16);
  // Flipping the sign bit makes signed comparison order the hashes as unsigned numbers.
  use('bitwise_xor_.Scalar', h, -(2 ** 31));
  const kept = use('ge.Scalar', h, Math.floor(rate * 2 ** 32) - 2 ** 31);
  const factors = use('mul_.Scalar', use('to.dtype', kept, ScalarType.float32), 1 / (1 - rate));
  return use('reshape', factors, shape);
}

export function registerDropout(): void {
  implement(dropoutOp, OWN, ({ x }, { rate, seed, rounds }, kernel) => {
    if (ours(kernel)) {
      const half = givesHalf(kernel, x, rounds);
      return outEither(kernel, half, 'alitok::dropout', asGiven(kernel, x), rate, seed, half);
    }
    const factors = dropoutFactors(kernel, sizeOf(x.shape), rate, seed, x.shape);
    return kernel.out('float32', 'mul.Tensor', kernel.id(x), factors);
  });
}
