import { flag } from '../backend.js';
import type { Handle } from '../binding.js';
import type { Kernel } from './register.js';

const NEITHER = [flag('adj_x', false)];
const FIRST = [flag('adj_x', true)];
const SECOND = [flag('adj_y', true)];
const TRANSPOSE_B = [flag('transpose_b', true)];

/** Up to this many rows, `MatMul` reads a weight faster than `BatchMatMulV2`, which is otherwise as fast or faster. */
const FEW_ROWS = 8;

/** a·b over the last two dimensions, for as many matrices as the leading dimensions have. */
export const product = ({ use }: Kernel, a: Handle, b: Handle) => use('BatchMatMulV2', [a, b], NEITHER);

/** aᵀ·b. */
export const productOfTransposed = ({ use }: Kernel, a: Handle, b: Handle) =>
  use('BatchMatMulV2', [a, b], FIRST);

/** a·bᵀ. */
export function productByTransposed({ use, backend }: Kernel, a: Handle, b: Handle): Handle {
  const [rows] = a.shape;
  // Without the shield (native/module.cc), a signal may damage the memory that MatMul uses.
  const few = a.shape.length === 2 && rows <= FEW_ROWS && backend.shielded;
  return few ? use('MatMul', [a, b], TRANSPOSE_B) : use('BatchMatMulV2', [a, b], SECOND);
}
