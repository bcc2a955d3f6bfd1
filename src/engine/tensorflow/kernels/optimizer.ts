import type { TensorInfo } from '@tensorflow/tfjs';
import { adamWLists, adamWOp, sumOfSquaresOp } from '../../ops/optimizer.js';
import { listOf, shape, type TensorFlow, Type, text, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement } from './register.js';

const FLOAT = type('dtype', Type.float32);

/** Tells apart the variables of a process. */
let variables = 0;

/** A variable of TensorFlow, the only thing that `ResourceApplyAdam` updates. */
class Variable {
  readonly handle: Handle;

  constructor(private readonly tensorflow: TensorFlow) {
    const name = text('shared_name', `alitok ${variables++}`);
    [this.handle] = tensorflow.run('VarHandleOp', [], [FLOAT, shape('shape', []), name], 1);
  }

  assign(tensor: Handle): void {
    this.tensorflow.run('AssignVariableOp', [this.handle, tensor], [FLOAT], 0);
  }

  read(): Handle {
    return this.tensorflow.run('ReadVariableOp', [this.handle], [FLOAT], 1)[0];
  }

  dispose(): void {
    this.tensorflow.run('DestroyResourceOp', [this.handle], [], 0);
    this.tensorflow.free(this.handle);
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
    const updated = [0, 1, 2].map(() => new Variable(tensorflow));
    const resources = updated.map((variable) => variable.handle);
    const results = parameters.flatMap((parameter, i) => {
      const tensors = [parameter, ms[i], vs[i]];
      const p = weightDecay === 0 ? handle(parameter) : use('Mul', [handle(parameter), decay]);
      const values = [p, handle(ms[i]), handle(vs[i])];
      updated.forEach((variable, j) => {
        variable.assign(values[j]);
      });
      // TensorFlow updates a variable in place if nothing else has its memory, and otherwise a copy of it.
      free(p);
      const own = tensors.map(tensorflow.release);
      const g = gradientScale === 1 ? handle(gradients[i]) : use('Mul', [handle(gradients[i]), scale]);
      tensorflow.run('ResourceApplyAdam', [...resources, ...settings, g], [], 0);
      free(g);
      return tensors.map((tensor, j) => {
        const next = updated[j].read();
        return own[j] ? tensorflow.give(tensor, next) : tensorflow.wrap(next);
      });
    });
    for (const variable of updated) variable.dispose();
    return results;
  });
  implement(sumOfSquaresOp, (inputs, _, { handle, use, number, out }) => {
    const halves = Object.values(inputs).map((x) => use('L2Loss', [handle(x)]));
    const sum = use('AddN', halves, listOf(halves.length, Type.float32));
    return out(use('Mul', [sum, number(2)]));
  });
}
