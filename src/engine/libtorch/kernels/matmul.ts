import { backend_util, type TensorInfo, util } from '@tensorflow/tfjs';
import type { Inputs } from '../../host/kernels.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { type Kernel, register } from './register.js';

type Transposes = { transposeA: boolean; transposeB: boolean };

function product({ id, use }: Kernel, a: TensorInfo, b: TensorInfo, { transposeA, transposeB }: Transposes) {
  const oriented = (x: TensorInfo, transpose: boolean) =>
    transpose ? use('transpose.int', id(x), -2, -1) : id(x);
  return [oriented(a, transposeA), oriented(b, transposeB)] as const;
}

type Activation = { activation?: string | null; leakyreluAlpha: number };

/** The end of tfjs's fused kernels: adds the bias to y, if there is one, and applies the activation. */
export function fusedOutput(
  kernel: Kernel,
  y: TensorId,
  { bias, preluActivationWeights }: Inputs,
  { activation, leakyreluAlpha }: Activation,
): TensorInfo {
  const { id, use, out } = kernel;
  const sum = bias ? use('add.Tensor', y, id(bias)) : y;
  const slopes = preluActivationWeights && id(preluActivationWeights);
  return out('float32', 'alias', activated(kernel, sum, activation, leakyreluAlpha, slopes));
}

/** tfjs's fused activations. */
function activated(
  { use }: Kernel,
  x: TensorId,
  activation: string | null | undefined,
  alpha: number,
  slopes?: TensorId,
): TensorId {
  switch (activation) {
    case undefined:
    case null:
    case 'linear':
      return x;
    case 'leakyrelu':
      return use('leaky_relu', x, alpha);
    case 'prelu':
      return use('where.self', use('ge.Scalar', x, 0), x, use('mul.Tensor', x, slopes));
    case 'elu':
    case 'relu':
    case 'relu6':
    case 'sigmoid':
      return use(activation, x);
    default:
      throw new Error(`no fused activation ${activation}`);
  }
}

export function registerMatmul(): void {
  register<Transposes>('BatchMatMul', ({ a, b }, attributes, kernel) => {
    const { id, out, backend } = kernel;
    const { transposeA, transposeB } = attributes;
    const floats = a.dtype === 'float32' && b.dtype === 'float32';
    if (backend.device === 'cpu' && floats && a.shape.length === 2 && b.shape.length === 2)
      return out('float32', 'alitok::product', id(a), id(b), transposeA, transposeB);
    util.assert(Math.min(a.shape.length, b.shape.length) >= 2, () => 'matMul takes matrices, not vectors');
    const [left, right] = product(kernel, a, b, attributes);
    if (floats || backend.device === 'cpu') return out(a.dtype, 'matmul', left, right);
    // CUDA does not multiply integer matrices; float64 holds their products exactly.
    const { use } = kernel;
    const [wideLeft, wideRight] = [left, right].map((x) => use('to.dtype', x, ScalarType.float64));
    return out(a.dtype, 'to.dtype', use('matmul', wideLeft, wideRight), backend.scalarType(a.dtype));
  });
  register<Transposes & Activation>('_FusedMatMul', (inputs, attributes, kernel) => {
    const factors = product(kernel, inputs.a, inputs.b, attributes);
    return fusedOutput(kernel, kernel.use('matmul', ...factors), inputs, attributes);
  });
  register<{ equation: string }>('Einsum', (inputs, { equation }, { id, out }) => {
    const tensors = Object.values(inputs);
    const { allDims, idDims } = backend_util.decodeEinsumEquation(equation, tensors.length);
    backend_util.checkEinsumDimSizes(allDims.length, idDims, tensors as never[]); // its errors, not PyTorch's
    return out(tensors[0].dtype, 'einsum', equation.replaceAll(' ', ''), tensors.map(id), null);
  });
}
