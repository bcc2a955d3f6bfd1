import { Type } from '../backend.js';
import { leaveToHost, register } from './register.js';

/** Operations on numbers where TensorFlow's differ from PyTorch's, or do not take all types. */
export function registerElementwise(): void {
  // TensorFlow's Sign of NaN is NaN.
  register('Sign', ({ x }, _, { handle, use, cast, out }) => {
    const value = handle(x);
    const zero = use('ZerosLike', [value]);
    const above = cast(use('Greater', [value, zero]), value.dtype);
    const below = cast(use('Less', [value, zero]), value.dtype);
    return out(use('Sub', [above, below]));
  });
  // TensorFlow 2.21 rounds integers to 0.
  register('Round', ({ x }, _, { handle, use, out }) =>
    out(use(x.dtype === 'float32' ? 'Round' : 'Identity', [handle(x)])),
  );
  register<{ alpha: number }>('Step', ({ x }, { alpha }, { handle, use, cast, number, out }) => {
    const value = cast(handle(x), Type.float32);
    const stepped = use('SelectV2', [use('Greater', [value, number(0)]), number(1), number(alpha)]);
    const result = use('SelectV2', [use('IsNan', [value]), value, stepped]);
    return out(cast(result, handle(x).dtype));
  });
  leaveToHost('LeakyRelu', ({ x }) => x.dtype !== 'float32');
  for (const name of ['Greater', 'GreaterEqual', 'Less', 'LessEqual'])
    leaveToHost(name, ({ a }) => a.dtype === 'string');
}
