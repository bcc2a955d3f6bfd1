import type { TensorInfo } from '@tensorflow/tfjs';
import { frozenLinearOp } from '../../ops/frozen.js';
import { linearOp, packedLinearOp, packWeightOp } from '../../ops/linear.js';
import { int, KEEP_DIMS, Type } from '../backend.js';
import type { Handle } from '../binding.js';
import { rowsOf } from './normalization.js';
import { product, productByTransposed, productOfTransposed } from './products.js';
import { implement, type Kernel } from './register.js';

/** The largest integer that a weight in 8 bits takes. */
const LARGEST = 127;

export interface Layer {
  /** (out, in), in float32 or packed. */
  weight: Handle;
  /** For each row, what a weight in 8 bits is multiplied by: (out). */
  scale?: Handle;
  bias?: Handle;
}

/**
 * x·weightᵀ + bias, for x (rows, in). TensorFlow multiplies only tensors of one type, so packed weights are widened for the
 * product: they save memory, and reading them instead of float32 numbers makes up for that.
 */
export function multiply(kernel: Kernel, x: Handle, { weight, scale, bias }: Layer): Handle {
  const { last, cast, free } = kernel;
  const wide = cast(weight, Type.float32);
  let y = productByTransposed(kernel, x, wide);
  if (wide !== weight) free(wide);
  if (scale) y = last('Mul', [y, scale]);
  return bias ? last('BiasAdd', [y, bias]) : y;
}

type LayerInputs = { weight: TensorInfo; scale?: TensorInfo; bias?: TensorInfo };

/** The handles of a layer's tensors. */
export const layerOf = ({ handle }: Kernel, { weight, scale, bias }: LayerInputs): Layer => ({
  weight: handle(weight),
  scale: scale && handle(scale),
  bias: bias && handle(bias),
});

/** Linear layers. */
export function registerLinear(): void {
  const linear = (inputs: LayerInputs & { x: TensorInfo }, _: object, kernel: Kernel) => {
    const { reshape, out } = kernel;
    const { x, weight } = inputs;
    const y = multiply(kernel, rowsOf(kernel, x), layerOf(kernel, inputs));
    return out(x.shape.length === 2 ? y : reshape(y, [...x.shape.slice(0, -1), weight.shape[0]]));
  };
  implement(linearOp, linear);
  implement(frozenLinearOp, linear);
  implement(packedLinearOp, linear);
  implement(packWeightOp, ({ weight }, { int8 }, { handle, use, cast, ints, number, out }) => {
    const w = handle(weight);
    if (!int8) return [out(cast(w, Type.bfloat16))];
    const largest = use('Max', [use('Abs', [w]), ints(-1)], KEEP_DIMS);
    const scale = use('Mul', [use('Maximum', [largest, number(1e-30)]), number(1 / LARGEST)]);
    const rounded = use('Round', [use('Div', [w, scale])]);
    return [out(cast(rounded, Type.int8)), out(use('Squeeze', [scale], [int('squeeze_dims', [1])]))];
  });
  implement(linearOp.backward, ({ dy, x, weight }, _, kernel) => {
    const { handle, out } = kernel;
    const dweight = productOfTransposed(kernel, handle(dy), rowsOf(kernel, x));
    return [out(product(kernel, handle(dy), handle(weight))), out(dweight)];
  });
}
