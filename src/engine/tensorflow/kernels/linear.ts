import type { TensorInfo } from '@tensorflow/tfjs';
import { frozenLinearOp } from '../../ops/frozen.js';
import { linearOp } from '../../ops/linear.js';
import { flag } from '../backend.js';
import type { Handle } from '../binding.js';
import { rowsOf } from './normalization.js';
import { implement, type Kernel } from './register.js';

const TRANSPOSE_A = [flag('transpose_a', true)];
const TRANSPOSE_B = [flag('transpose_b', true)];

/** x·weightᵀ + bias, for x (rows, in) and weight (out, in). */
export function multiply({ use, last }: Kernel, x: Handle, weight: Handle, bias?: Handle): Handle {
  const y = use('MatMul', [x, weight], TRANSPOSE_B);
  return bias ? last('BiasAdd', [y, bias]) : y;
}

/** Linear layers. */
export function registerLinear(): void {
  const linear = (kernel: Kernel, x: TensorInfo, weight: TensorInfo, bias?: TensorInfo) => {
    const { handle, reshape, out } = kernel;
    const y = multiply(kernel, rowsOf(kernel, x), handle(weight), bias && handle(bias));
    return out(x.shape.length === 2 ? y : reshape(y, [...x.shape.slice(0, -1), weight.shape[0]]));
  };
  implement(linearOp, ({ x, weight, bias }, _, kernel) => linear(kernel, x, weight, bias));
  implement(frozenLinearOp, ({ x, weight, bias }, _, kernel) => linear(kernel, x, weight, bias));
  implement(linearOp.backward, ({ dy, x, weight }, _, kernel) => {
    const { handle, use, out } = kernel;
    const dweight = use('MatMul', [handle(dy), rowsOf(kernel, x)], TRANSPOSE_A);
    return [out(use('MatMul', [handle(dy), handle(weight)])), out(dweight)];
  });
}
