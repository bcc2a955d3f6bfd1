import type { TensorInfo } from '@tensorflow/tfjs';
import { adamWLists, adamWOp, sumOfSquaresOp } from '../../ops/optimizer.js';
import { listOf, shape, type TensorFlow, Type, text, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement } from './register.js';

const FLOAT = type('dtype', Type.float32);

/** Data that AdamW made: nothing else has their memory, and it may write to it again. Others may be JavaScript's arrays. */
const made = new WeakSet<object>();

/** A variable of TensorFlow, the only thing that `ResourceApplyAdam` updates. */
class Resource {
  private readonly resource: Handle;

  constructor(private readonly tensorflow: TensorFlow) {
    const name = text('shared_name', `alitok ${Resource.count++}`);
    [this.resource] = tensorflow.run('VarHandleOp', [], [FLOAT, shape('shape', []), name], 1);
  }

  private static count = 0;

  get handle(): Handle {
    return this.resource;
  }

  /** Takes over a tensor, whose handle is freed: with no other handle on its memory, an update happens in place. */
  take(tensor: Handle): void {
    this.tensorflow.run('AssignVariableOp', [this.resource, tensor], [FLOAT], 0);
    this.tensorflow.free(tensor);
  }

  read(): Handle {
    return this.tensorflow.run('ReadVariableOp', [this.resource], [FLOAT], 1)[0];
  }

  dispose(): void {
    this.tensorflow.run('DestroyResourceOp', [this.resource], [], 0);
    this.tensorflow.free(this.resource);
  }
}

/** AdamW and the gradient norm, over all parameters at once. */
export function registerOptimizer(): void {
  implement(adamWOp, (inputs, attributes, kernel) => {
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const { handle, use, free, number, changing, tensorflow } = kernel;
    const [parameters, gradients, ms, vs] = adamWLists<TensorInfo>(inputs);
    // The corrections for the first steps are computed here in float64: powers of β that are 0 leave them to the rate and ε.
    const correction = Math.sqrt(1 - beta2 ** step);
    const rate = changing((lr * correction) / (1 - beta1 ** step));
    const settings = [
      number(0),
      number(0),
      rate,
      number(beta1),
      number(beta2),
      changing(epsilon * correction),
    ];
    const decay = changing(1 - lr * weightDecay);
    const scale = changing(gradientScale);
    const variables = [0, 1, 2].map(() => new Resource(tensorflow));
    const resources = variables.map((variable) => variable.handle);
    const results = parameters.flatMap((parameter, i) => {
      const own = [parameter, ms[i], vs[i]].map((x) => (made.has(x.dataId) ? tensorflow.take(x) : undefined));
      const [p, m, v] = own.map((x, j) => x ?? copyOf(tensorflow, [parameter, ms[i], vs[i]][j]));
      variables[0].take(weightDecay === 0 ? p : decayed(tensorflow, p, decay));
      variables[1].take(m);
      variables[2].take(v);
      const g = gradientScale === 1 ? handle(gradients[i]) : use('Mul', [handle(gradients[i]), scale]);
      tensorflow.run('ResourceApplyAdam', [...resources, ...settings, g], [], 0);
      free(g);
      return [parameter, ms[i], vs[i]].map((x, j) => {
        const next = variables[j].read();
        const result = own[j] ? tensorflow.give(x, next) : tensorflow.wrap(next);
        made.add(result.dataId);
        return result;
      });
    });
    for (const variable of variables) variable.dispose();
    return results;
  });
  implement(sumOfSquaresOp, (inputs, _, { handle, use, number, out }) => {
    const halves = Object.values(inputs).map((x) => use('L2Loss', [handle(x)]));
    const sum = use('AddN', halves, listOf(halves.length, Type.float32));
    return out(use('Mul', [sum, number(2)]));
  });
}

/** A copy of a tensor that something else may still read. */
const copyOf = (tensorflow: TensorFlow, x: TensorInfo): Handle =>
  tensorflow.run('DeepCopy', [tensorflow.handle(x)], [], 1)[0];

/** p times `decay`; frees p. */
function decayed(tensorflow: TensorFlow, p: Handle, decay: Handle): Handle {
  const [result] = tensorflow.run('Mul', [p, decay], [], 1);
  tensorflow.free(p);
  return result;
}
