import type { TensorInfo } from '@tensorflow/tfjs';
import { type AdamWAttributes, adamWLists } from '../../ops/index.js';
import { ScalarType } from '../backend.js';
import { ours } from './products.js';
import { type Kernel, register } from './register.js';

/** What happens to all parameters at once. */
export function registerOptimizer(): void {
  register<AdamWAttributes>('alitok.AdamW', (inputs, attributes, kernel) => {
    const [parameters, gradients, ms, vs] = adamWLists(inputs);
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const { id, use, out, backend } = kernel;
    const fused = !ours(kernel) && backend.has('_fused_adamw_');
    if (!ours(kernel) && !fused) return adamWOneByOne(kernel, [parameters, gradients, ms, vs], attributes);
    const root = 1 / Math.sqrt(1 - beta2 ** step);
    const rate = lr / (1 - beta1 ** step);
    const own = (x: TensorInfo) => (backend.mayReuse(x) ? backend.alias(x) : out('float32', 'clone', id(x)));
    const lists = [parameters, ms, vs].map((tensors) => tensors.map(own));
    const [p, m, v] = lists.map((tensors) => tensors.map(id));
    if (fused) {
      const scalar = (value: number) => use('full', [], value, ScalarType.float32, null, backend.device);
      const steps = parameters.map(() => scalar(step));
      const numbers = [lr, beta1, beta2, weightDecay, epsilon, false, false];
      backend.call(
        '_fused_adamw_',
        p,
        gradients.map(id),
        m,
        v,
        [],
        steps,
        ...numbers,
        scalar(1 / gradientScale),
      );
    } else {
      const factors = [gradientScale, beta1, beta2, epsilon, 1 - lr * weightDecay, rate, root];
      backend.call('alitok::adamw', p, gradients.map(id), m, v, factors);
    }
    return parameters.flatMap((_, i) => lists.map((list) => list[i]));
  });
  register('alitok.SumOfSquares', (inputs, _, kernel) => {
    const tensors = Object.values(inputs).map(kernel.id);
    if (ours(kernel)) return kernel.out('float32', 'alitok::sum_of_squares', tensors);
    const sums = tensors.map((x) => kernel.use('sum', kernel.use('square', x)));
    return kernel.out('float32', 'sum', kernel.use('stack', sums));
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
