import type { TensorInfo } from '@tensorflow/tfjs';
import { frozenConv2dOp, frozenDepthwiseConv2dOp } from '../../ops/frozen.js';
import { int, text } from '../backend.js';
import { implement, type Kernel } from './register.js';

/** A weight (out, in, h, w) as TensorFlow wants it: (h, w, in, out). */
const TO_HWIO = [2, 3, 1, 0];
/** A depthwise weight (C, 1, h, w) as TensorFlow wants it: (h, w, C, 1). */
const TO_HWC1 = [2, 3, 0, 1];

const window = (stride: number, same: boolean) => [
  int('strides', [1, stride, stride, 1]),
  text('padding', same ? 'SAME' : 'VALID'),
];
const DEPTHWISE = window(1, true);

/** A weight with its axes permuted, once. */
const transposed = ({ tensorflow, handle, ints }: Kernel, weight: TensorInfo, axes: readonly number[]) =>
  tensorflow.derived([weight], () => tensorflow.run('Transpose', [handle(weight), ints(axes)], [], 1)[0]);

/** Convolutions of frozen networks, whose weights are transposed once. */
export function registerFrozen(): void {
  implement(frozenConv2dOp, ({ x, weight, bias }, { stride, same, relu }, kernel) => {
    const { handle, use, last, out } = kernel;
    const filter = transposed(kernel, weight, TO_HWIO);
    const y = last('BiasAdd', [use('Conv2D', [handle(x), filter], window(stride, same)), handle(bias)]);
    return out(relu ? last('Relu', [y]) : y);
  });
  implement(frozenConv2dOp.backward, (inputs, _, { handle, use, number, out }) => {
    const [dy, y] = [handle(inputs.dy), handle(inputs.y)];
    return out(use('SelectV2', [use('LessEqual', [y, number(0)]), use('ZerosLike', [dy]), dy]));
  });
  implement(frozenDepthwiseConv2dOp, ({ x, weight, bias }, _, kernel) => {
    const { handle, use, last, out } = kernel;
    const filter = transposed(kernel, weight, TO_HWC1);
    const y = use('DepthwiseConv2dNative', [handle(x), filter], DEPTHWISE);
    return out(last('BiasAdd', [y, handle(bias)]));
  });
}
