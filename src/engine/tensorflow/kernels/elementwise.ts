import { Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { type Kernel, leaveToHost, register } from './register.js';

const castTo = ({ use }: Kernel, x: Handle, dtype: number): Handle =>
  x.dtype === dtype ? x : use('Cast', [x], [type('DstT', dtype)]);

/** Operations on numbers where TensorFlow's differ from PyTorch's, or do not take all types. */
export function registerElementwise(): void {
  // TensorFlow's Sign of NaN is NaN.
  register('Sign', ({ x }, _, kernel) => {
    const { handle, use, out } = kernel;
    const value = handle(x);
    const zero = use('ZerosLike', [value]);
    const above = castTo(kernel, use('Greater', [value, zero]), value.dtype);
    const below = castTo(kernel, use('Less', [value, zero]), value.dtype);
    return out(use('Sub', [above, below]));
  });
  // TensorFlow 2.21 rounds integers to 0.
  register('Round', ({ x }, _, { handle, use, out }) =>
    out(use(x.dtype === 'float32' ? 'Round' : 'Identity', [handle(x)])),
  );
  register<{ alpha: number }>('Step', ({ x }, { alpha }, kernel) => {
    const { handle, use, number, out } = kernel;
    const value = castTo(kernel, handle(x), Type.float32);
    const stepped = use('SelectV2', [use('Greater', [value, number(0)]), number(1), number(alpha)]);
    const result = use('SelectV2', [use('IsNan', [value]), value, stepped]);
    return out(castTo(kernel, result, handle(x).dtype));
  });
  leaveToHost('LeakyRelu', ({ x }) => x.dtype !== 'float32');
  for (const name of ['Greater', 'GreaterEqual', 'Less', 'LessEqual'])
    leaveToHost(name, ({ a }) => a.dtype === 'string');
}
