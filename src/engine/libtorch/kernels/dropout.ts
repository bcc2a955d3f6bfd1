import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { ours } from './products.js';
import { type Kernel, register, sizeOf } from './register.js';

/** 1/(1−rate) where an element is kept and 0 where it is dropped, by the hash that all engines share. */
export function dropoutFactors(
  { use, backend }: Kernel,
  size: number,
  rate: number,
  seed: number,
  shape: number[],
): TensorId {
  const low32 = (x: TensorId) => use('bitwise_and.Scalar', x, 0xffffffff);
  // 32-bit products in 64-bit integers: by the factor's halves, so that nothing overflows.
  const times = (x: TensorId, factor: number) => {
    const high = low32(
      use('bitwise_left_shift.Tensor_Scalar', low32(use('mul.Scalar', x, factor >>> 16)), 16),
    );
    return low32(use('add.Tensor', high, use('mul.Scalar', x, factor & 0xffff)));
  };
  const mixed = (x: TensorId, shift: number) =>
    use('bitwise_xor.Tensor', x, use('bitwise_right_shift.Tensor_Scalar', x, shift));
  const index = use('arange', size, ScalarType.int64, null, backend.device);
  let h = low32(use('add.Scalar', index, Math.imul(seed, 0x9e3779b1) >>> 0));
  h = times(mixed(h, 16), 0x85ebca6b);
  h = times(mixed(h, 13), 0xc2b2ae35);
  h = mixed(h, 16);
  const kept = use('ge.Scalar', h, Math.floor(rate * 2 ** 32));
  const factors = use('mul.Scalar', use('to.dtype', kept, ScalarType.float32), 1 / (1 - rate));
  return use('reshape', factors, shape);
}

export function registerDropout(): void {
  register<{ rate: number; seed: number }>('alitok.Dropout', ({ x }, { rate, seed }, kernel) => {
    if (ours(kernel)) return kernel.out('float32', 'alitok::dropout', kernel.id(x), rate, seed);
    const factors = dropoutFactors(kernel, sizeOf(x.shape), rate, seed, x.shape);
    return kernel.out('float32', 'mul.Tensor', kernel.id(x), factors);
  });
}
