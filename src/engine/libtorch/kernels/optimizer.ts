import type { TensorInfo } from '@tensorflow/tfjs';
import { type AdamWAttributes, adamWLists, adamWOp, sumOfSquaresOp } from '../../ops/optimizer.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { keepsHalf, onCpu } from './products.js';
import { implement, type Kernel } from './register.js';

/** PyTorch's number of the contiguous memory format. */
const CONTIGUOUS = 0;

/** AdamW and the gradient norm, over all parameters at once. */
export function registerOptimizer(): void {
  implement(adamWOp, { cpu: 'own', cuda: 'pytorch' }, (inputs, attributes, kernel) => {
    const [parameters, gradients, ms, vs] = adamWLists<TensorInfo>(inputs);
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const { id, use, drop, out, backend } = kernel;
    const fused = !onCpu(kernel) && backend.has('_fused_adamw_');
    if (!onCpu(kernel) && !fused) return adamWOneByOne(kernel, [parameters, gradients, ms, vs], attributes);
    const root = 1 / Math.sqrt(1 - beta2 ** step);
    const rate = lr / (1 - beta1 ** step);
    const own = (x: TensorInfo) => {
      if (!backend.mayReuse(x)) return out('float32', 'clone', id(x), CONTIGUOUS);
      backend.overwritten(x);
      return backend.alias(x);
    };
    // Weights that were rounded for products will be needed rounded again.
    const rounded = parameters.map((x) => keepsHalf(kernel) && backend.hasRounded(x));
    const lists = [parameters, ms, vs].map((tensors) => tensors.map(own));
    const [p, m, v] = lists.map((tensors) => tensors.map(id));
    if (fused) {
      // It needs all four tensors of a parameter in the same memory layout, which gradients of convolutions often lack. Its own
      // `grad_scale` would write to the gradients, and two of these may share memory.
      const lying = gradients.map((x) => use('contiguous', id(x)));
      const scaled: TensorId[] =
        gradientScale === 1 ? lying : backend.call('_foreach_mul.Scalar', lying, gradientScale).map(drop);
      const count = use('full', [], step, ScalarType.float32, null, backend.device);
      const steps = parameters.map(() => count); // each is only read
      const numbers = [lr, beta1, beta2, weightDecay, epsilon, false, false];
      backend.call('_fused_adamw_', p, scaled, m, v, [], steps, ...numbers);
      const again = lists[0].filter((_, i) => rounded[i]);
      if (again.length > 0) backend.takeRounded(again, backend.call('alitok::round_all', again.map(id)));
    } else {
      const factors = [gradientScale, beta1, beta2, epsilon, 1 - lr * weightDecay, rate, root];
      backend.call('alitok::adamw', p, gradients.map(id), m, v, factors);
    }
    return parameters.flatMap((_, i) => lists.map((list) => list[i]));
  });
  implement(sumOfSquaresOp, { cpu: 'own', cuda: 'pytorch' }, (inputs, _, kernel) => {
    const tensors = Object.values(inputs).map(kernel.id);
    if (onCpu(kernel)) return kernel.out('float32', 'alitok::sum_of_squares', tensors);
    const norms: TensorId[] = kernel.backend.call('_foreach_norm.Scalar', tensors, 2).map(kernel.drop);
    return kernel.out('float32', 'sum', kernel.use('square', kernel.use('stack', norms)));
  });
}

function adamWOneByOne(
  { id, use, backend }: Kernel,
  [parameters, gradients, ms, vs]: TensorInfo[][],
  { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale }: AdamWAttributes,
): TensorInfo[] {
  const root = 1 / Math.sqrt(1 - beta2 ** step);
  const rate = lr / (1 - beta1 ** step);
  return parameters.flatMap((parameter, i) => {
    const g = gradientScale === 1 ? id(gradients[i]) : use('mul.Scalar', id(gradients[i]), gradientScale);
    const mNext = backend.call('lerp.Scalar', id(ms[i]), g, 1 - beta1);
    const vNext = backend.call('addcmul', use('mul.Scalar', id(vs[i]), beta2), g, g, 1 - beta2);
    const denominator = use('add.Scalar', use('mul.Scalar', use('sqrt', vNext), root), epsilon);
    const decayed = use('mul.Scalar', id(parameter), 1 - lr * weightDecay);
    const next = backend.call('addcdiv', decayed, mNext, denominator, -rate);
    return [next, mNext, vNext].map((x) => backend.wrap(x, 'float32', parameter.shape));
  });
}
