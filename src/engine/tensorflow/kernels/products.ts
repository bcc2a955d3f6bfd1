import { flag } from '../backend.js';
import type { Handle } from '../binding.js';
import type { Kernel } from './register.js';

const NEITHER = [flag('adj_x', false)];
const FIRST = [flag('adj_x', true)];
const SECOND = [flag('adj_y', true)];

// Products are `BatchMatMulV2` for single matrices too. `MatMul` calls oneDNN's sgemm, whose code for AVX-512 (TensorFlow 2.21)
// keeps data below the stack pointer: a signal, such as Ctrl-C or a profiler's, overwrites them, and the process crashes.

/** a·b over the last two dimensions, for as many matrices as the leading dimensions have. */
export const product = ({ use }: Kernel, a: Handle, b: Handle) => use('BatchMatMulV2', [a, b], NEITHER);

/** aᵀ·b. */
export const productOfTransposed = ({ use }: Kernel, a: Handle, b: Handle) =>
  use('BatchMatMulV2', [a, b], FIRST);

/** a·bᵀ. */
export const productByTransposed = ({ use }: Kernel, a: Handle, b: Handle) =>
  use('BatchMatMulV2', [a, b], SECOND);
