import type { TensorInfo } from '@tensorflow/tfjs';
import { EngineError } from '../../../errors.js';
import { ScalarType } from '../backend.js';
import { FEW_ROWS, LANES } from '../bridge.js';
import { inHalf, inPrecision, keepsHalf, ours, outProduct } from './products.js';
import { type Kernel, register, sizeOf } from './register.js';

/** Linear layers and what stands between them in a feed-forward part. */
export function registerLinear(): void {
  register('alitok.Linear', ({ x, weight, bias }, _, kernel) => {
    const { id, out } = kernel;
    const [factor, matrix] = [x, weight].map((tensor) => inPrecision(kernel, tensor));
    const width = weight.shape[1];
    if (inHalf(kernel))
      return outProduct(kernel, 'linear', factor, matrix, bias ? inPrecision(kernel, bias) : null);
    const offset = bias ? id(bias) : null;
    if (!ours(kernel)) return out('float32', 'linear', factor, matrix, offset);
    if (sizeOf(x.shape) > FEW_ROWS * width || width % LANES > 0)
      return out('float32', 'alitok::linear', factor, matrix, offset);
    return out('float32', 'alitok::linear_few', factor, matrix, null, offset);
  });
  register('alitok.LinearGrad', ({ dy, x, weight }, _, kernel) => {
    const { use, out } = kernel;
    // The factors' rows are views of what the forward pass multiplied.
    const rows = (tensor: TensorInfo) =>
      use('reshape', inPrecision(kernel, tensor), [-1, tensor.shape.at(-1)!]);
    const [gradient, factor, matrix] = [rows(dy), rows(x), inPrecision(kernel, weight)];
    if (ours(kernel) && !inHalf(kernel))
      return [
        out('float32', 'alitok::product', gradient, matrix, false, false),
        out('float32', 'alitok::product', gradient, factor, true, false),
      ];
    // What is added up for a weight and scaled is float32 at once.
    const dweight = use('mm', use('t', gradient), factor);
    return [
      outProduct(kernel, 'mm', gradient, matrix),
      out('float32', 'to.dtype', dweight, ScalarType.float32),
    ];
  });
  register<{ int8: boolean }>('alitok.PackWeight', ({ weight }, { int8 }, kernel) => {
    const { id, out, backend } = kernel;
    if (!ours(kernel)) {
      if (!int8) return [out('float32', 'to.dtype', id(weight), ScalarType.bfloat16)];
      throw new EngineError(
        `weights in int8 are for --device cpu, not ${backend.device}; use --weights bf16`,
      );
    }
    if (!int8) return [out('float32', 'alitok::pack_bf16', id(weight))];
    const [packed, scale] = backend.call('alitok::pack_int8', id(weight));
    return [backend.wrap(packed, 'int32'), backend.wrap(scale, 'float32')];
  });
  register('alitok.PackedLinear', ({ x, weight, scale, bias }, _, kernel) => {
    const { id, out, backend } = kernel;
    const [factors, offset] = [scale, bias].map((tensor) => (tensor ? id(tensor) : null));
    if (ours(kernel)) return out('float32', 'alitok::linear_few', id(x), id(weight), factors, offset);
    return outProduct(kernel, 'linear', backend.halfOf(x), id(weight), bias ? backend.halfOf(bias) : null);
  });
  /** Whether to go on in bfloat16 from x, which a product gave in it. */
  const staysHalf = (kernel: Kernel, x: TensorInfo) => keepsHalf(kernel) && kernel.backend.isHalf(x);
  register('alitok.Gelu', ({ x }, _, kernel) => {
    const { id, out, outHalf, backend } = kernel;
    return staysHalf(kernel, x) ? outHalf('gelu', backend.halfOf(x)) : out('float32', 'gelu', id(x));
  });
  register('alitok.GeluGrad', ({ dy, x }, _, kernel) => {
    const { id, out, outHalf, backend } = kernel;
    if (staysHalf(kernel, x)) return outHalf('gelu_backward', backend.halfOf(dy), backend.halfOf(x));
    return out('float32', 'gelu_backward', id(dy), id(x));
  });
  register('alitok.SwiGLU', ({ gate, value }, _, kernel) => {
    const { id, use, out } = kernel;
    if (ours(kernel)) return out('float32', 'alitok::swiglu', id(gate), id(value));
    return out('float32', 'mul.Tensor', use('silu', id(gate)), id(value));
  });
  register('alitok.SwiGLUGrad', ({ dy, gate, value }, _, kernel) => {
    const { id, use, out, outs } = kernel;
    if (ours(kernel)) return outs('alitok::swiglu_grad', id(dy), id(gate), id(value));
    return [
      out('float32', 'silu_backward', use('mul.Tensor', id(dy), id(value)), id(gate)),
      out('float32', 'mul.Tensor', id(dy), use('silu', id(gate))),
    ];
  });
}
