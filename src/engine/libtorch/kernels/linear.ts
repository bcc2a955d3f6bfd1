import type { TensorInfo } from '@tensorflow/tfjs';
import { EngineError, option } from '../../../errors.js';
import { sizeOf } from '../../../shapes.js';
import { geluOp, swiGLUOp } from '../../ops/activation.js';
import { joinLayersOp } from '../../ops/generator-step.js';
import { linearOp, packedLinearOp, packWeightOp } from '../../ops/linear.js';
import { ScalarType } from '../backend.js';
import { FEW_ROWS, LANES, type TensorId } from '../bridge.js';
import {
  alike,
  asGiven,
  inHalf,
  inPrecision,
  onCpu,
  ours,
  outGiven,
  outProduct,
  ownCuda,
} from './products.js';
import { implement, OWN, PYTORCH } from './register.js';

/** Linear layers, and the activations between them. */
export function registerLinear(): void {
  implement(linearOp, { cpu: 'own', cuda: 'pytorch' }, ({ x, weight, bias }, _, kernel) => {
    const { id, out } = kernel;
    const [factor, matrix] = [x, weight].map((tensor) => inPrecision(kernel, tensor));
    const width = weight.shape[1];
    if (inHalf(kernel))
      return outProduct(kernel, 'linear', factor, matrix, bias ? inPrecision(kernel, bias) : null);
    const offset = bias ? id(bias) : null;
    if (!onCpu(kernel)) return out('float32', 'linear', factor, matrix, offset);
    if (sizeOf(x.shape) > FEW_ROWS * width || width % LANES > 0)
      return out('float32', 'alitok::linear', factor, matrix, offset);
    return out('float32', 'alitok::linear_few', factor, matrix, null, offset);
  });
  implement(linearOp.backward, { cpu: 'own', cuda: 'pytorch' }, ({ dy, x, weight }, _, kernel) => {
    const { use, out, backend } = kernel;
    // Views of the tensors that the forward pass multiplied.
    const rows = (tensor: TensorInfo) =>
      use('reshape', inPrecision(kernel, tensor), [-1, tensor.shape.at(-1)!]);
    const [gradient, factor, matrix] = [rows(dy), rows(x), inPrecision(kernel, weight)];
    if (onCpu(kernel) && !inHalf(kernel))
      return [
        out('float32', 'alitok::product', gradient, matrix, false, false),
        out('float32', 'alitok::product', gradient, factor, true, false),
      ];
    // A weight's gradient is float32 from the start, since it is accumulated and scaled.
    const columns = use('t', gradient);
    const dweight =
      inHalf(kernel) && backend.widensProducts
        ? out('float32', 'mm.dtype', columns, factor, ScalarType.float32)
        : out('float32', 'to.dtype', use('mm', columns, factor), ScalarType.float32);
    return [outProduct(kernel, 'mm', gradient, matrix), dweight];
  });
  implement(packWeightOp, { cpu: 'own', cuda: 'pytorch' }, ({ weight }, { int8 }, kernel) => {
    const { id, out, backend } = kernel;
    if (!onCpu(kernel)) {
      if (!int8) return [out('float32', 'to.dtype', id(weight), ScalarType.bfloat16)];
      throw new EngineError(
        `weights in int8 need ${option('device', 'cpu')}; on ${backend.device} use ${option('weights', 'bf16')}`,
      );
    }
    if (!int8) return [out('float32', 'alitok::pack_bf16', id(weight))];
    const [packed, scale] = backend.call('alitok::pack_int8', id(weight));
    return [backend.wrap(packed, 'int32'), backend.wrap(scale, 'float32')];
  });
  implement(packedLinearOp, { cpu: 'own', cuda: 'pytorch' }, ({ x, weight, scale, bias }, _, kernel) => {
    const { id, out, backend } = kernel;
    const [factors, offset] = [scale, bias].map((tensor) => (tensor ? id(tensor) : null));
    if (onCpu(kernel)) return out('float32', 'alitok::linear_few', id(x), id(weight), factors, offset);
    return outProduct(kernel, 'linear', backend.halfOf(x), id(weight), bias ? backend.halfOf(bias) : null);
  });
  // PyTorch's kernels for these make one pass over memory, in either type.
  implement(geluOp, PYTORCH, ({ x }, _, kernel) =>
    outGiven(kernel, x, kernel.backend.call('gelu', asGiven(kernel, x))),
  );
  implement(geluOp.backward, PYTORCH, ({ dy, x }, _, kernel) =>
    outGiven(kernel, x, kernel.backend.call('gelu_backward', alike(kernel, x, dy), asGiven(kernel, x))),
  );
  implement(swiGLUOp, OWN, ({ gate, value }, _, kernel) => {
    const { id, use, out, backend } = kernel;
    if (!ours(kernel)) return out('float32', 'mul.Tensor', use('silu', id(gate)), id(value));
    const y = backend.call('alitok::swiglu', asGiven(kernel, gate), alike(kernel, gate, value));
    return outGiven(kernel, gate, y);
  });
  implement(swiGLUOp.backward, OWN, ({ dy, gate, value }, _, kernel) => {
    const { id, use, out, backend } = kernel;
    if (ours(kernel)) {
      const inputs = [alike(kernel, gate, dy), asGiven(kernel, gate), alike(kernel, gate, value)];
      const gradients = backend.call('alitok::swiglu_grad', ...inputs) as TensorId[];
      return gradients.map((gradient) => outGiven(kernel, gate, gradient));
    }
    return [
      out('float32', 'silu_backward', use('mul.Tensor', id(dy), id(value)), id(gate)),
      out('float32', 'mul.Tensor', id(dy), use('silu', id(gate))),
    ];
  });
  // On a CUDA device each product is a kernel launch, so decoding multiplies by w1 and w3 at once.
  implement(joinLayersOp, { cpu: 'none', cuda: 'pytorch' }, ({ w1, w3 }, { packed }, kernel) => {
    const { id, out, outHalf, backend } = kernel;
    if (!ownCuda(kernel)) return [];
    if (packed || !inHalf(kernel)) return [out('float32', 'cat', [id(w1), id(w3)], 0)];
    return [
      outHalf(
        'cat',
        [w1, w3].map((x) => backend.halfOf(x)),
        0,
      ),
    ];
  });
}
