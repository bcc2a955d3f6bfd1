import { geluOp, swiGLUOp } from '../../ops/activation.js';
import type { Handle } from '../binding.js';
import { implement, type Kernel } from './register.js';

/** The normal distribution's Φ(x). */
function normalCdf({ use, last, number }: Kernel, x: Handle): Handle {
  const erf = last('Erf', [use('Mul', [x, number(Math.SQRT1_2)])]);
  return last('Mul', [last('AddV2', [erf, number(1)]), number(0.5)]);
}

/** GELU and SwiGLU. */
export function registerActivation(): void {
  implement(geluOp, ({ x }, _, kernel) => {
    const { handle, use, out } = kernel;
    return out(use('Mul', [handle(x), normalCdf(kernel, handle(x))]));
  });
  implement(geluOp.backward, (inputs, _, kernel) => {
    const { handle, use, last, number, out } = kernel;
    const [dy, x] = [handle(inputs.dy), handle(inputs.x)];
    const exponent = last('Mul', [use('Square', [x]), number(-0.5)]);
    const density = last('Mul', [last('Exp', [exponent]), number(1 / Math.sqrt(2 * Math.PI))]);
    const slope = last('AddV2', [normalCdf(kernel, x), last('Mul', [x, density])]);
    return out(use('Mul', [dy, slope]));
  });
  implement(swiGLUOp, ({ gate, value }, _, { handle, use, last, out }) => {
    const silu = last('Mul', [handle(gate), use('Sigmoid', [handle(gate)])]);
    return out(use('Mul', [silu, handle(value)]));
  });
  implement(swiGLUOp.backward, (inputs, _, { handle, use, last, number, out }) => {
    const [dy, gate, value] = [handle(inputs.dy), handle(inputs.gate), handle(inputs.value)];
    const sigmoid = use('Sigmoid', [gate]);
    const silu = use('Mul', [gate, sigmoid]);
    const dvalue = use('Mul', [dy, silu]);
    // d silu/dx = σ + silu·(1 − σ)
    const rest = last('Mul', [silu, use('Sub', [number(1), sigmoid])]);
    const slope = last('AddV2', [sigmoid, rest]);
    return [out(last('Mul', [use('Mul', [dy, value]), slope])), out(dvalue)];
  });
}
