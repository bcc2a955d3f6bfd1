import { sizeOf } from '../../../shapes.js';
import { dropoutOp } from '../../ops/dropout.js';
import { Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement, type Kernel } from './register.js';

const AS_UINT32 = [type('type', Type.uint32)];

/**
 * 1/(1−rate) where an element is kept and 0 where it is dropped, decided by the hash that all engines share. Unsigned 32-bit
 * integers wrap and shift as the hash requires, and TensorFlow keeps them on the device, unlike signed ones.
 */
export function dropoutFactors(
  { use, last, cast, ints, changingInts, number, free }: Kernel,
  shape: readonly number[],
  rate: number,
  seed: number,
): Handle {
  const word = (value: number) => use('Bitcast', [ints(value | 0)], AS_UINT32);
  // Elements are counted by rows of many, because TensorFlow counts on the host.
  const columns = sizeOf(shape.slice(-2));
  const size = sizeOf(shape as number[]);
  const range = (end: number, step: number) => use('Range', [ints(0), ints(end), ints(step)]);
  const first = use('AddV2', [range(size, columns), changingInts(Math.imul(seed, 0x9e3779b1))]);
  const rows = use('Bitcast', [use('Reshape', [first, ints([-1, 1])])], AS_UINT32);
  const mix = (h: Handle, shift: number) => {
    const mixed = use('BitwiseXor', [h, use('RightShift', [h, word(shift)])]);
    free(h);
    return mixed;
  };
  let h = use('AddV2', [rows, use('Bitcast', [range(columns, 1)], AS_UINT32)]);
  h = last('Mul', [mix(h, 16), word(0x85ebca6b)]);
  h = last('Mul', [mix(h, 13), word(0xc2b2ae35)]);
  const kept = last('GreaterEqual', [mix(h, 16), word(Math.floor(rate * 2 ** 32))]);
  const factors = last('Mul', [cast(kept, Type.float32), number(1 / (1 - rate))]);
  free(kept);
  return last('Reshape', [factors, ints(shape)]);
}

export function registerDropout(): void {
  implement(dropoutOp, ({ x }, { rate, seed }, kernel) => {
    const { handle, last, out } = kernel;
    return out(last('Mul', [handle(x), dropoutFactors(kernel, x.shape, rate, seed)]));
  });
}
