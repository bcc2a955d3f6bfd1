import * as tf from '@tensorflow/tfjs';
import { adamW } from '../engine/ops/index.js';
import type { Gradient } from './gradients.js';
import { zeros } from './initializers.js';
import { type Parameter, Parameters } from './parameters.js';

const EPSILON = 1e-8;

export interface AdamWOptions {
  beta1: number;
  beta2: number;
  weight_decay: number;
  /** Which parameters decay; all if absent. */
  decays?: (parameter: Parameter) => boolean;
  /** What a parameter's learning rate is multiplied by; 1 if absent. */
  lrScale?: (parameter: Parameter) => number;
  /** Which parameters, by index, this optimizer updates and keeps moments for; all if absent. */
  owns?: (index: number) => boolean;
}

/** AdamW over a list of parameters; its moments are parameters too, `m.NAME` and `v.NAME`, so that they are saved the same way. */
export class AdamW {
  /** Steps done. */
  steps = 0;
  readonly state = new Parameters();
  private readonly moments;

  constructor(
    private readonly parameters: readonly Parameter[],
    private readonly options: AdamWOptions,
  ) {
    const [m, v] = [this.state.scope('m'), this.state.scope('v')];
    this.moments = parameters.map((p) => ({
      m: m.parameter(p.name, p.shape, zeros),
      v: v.parameter(p.name, p.shape, zeros),
    }));
  }

  /** Sets the moments to zero, as at the start of a run. */
  initialize(): void {
    for (const p of this.state) p.value = tf.fill(p.shape as number[], 0);
  }

  /**
   * One step with the gradients (in the parameters' order), each multiplied by `gradientScale` first. A parameter without
   * a gradient is neither updated nor decayed.
   */
  update(gradients: readonly Gradient[], lr: number, gradientScale = 1): void {
    this.steps += 1;
    const { beta1, beta2, weight_decay } = this.options;
    const { decays = () => true, lrScale = () => 1, owns = () => true } = this.options;
    const all = this.parameters.flatMap((parameter, i) => {
      const gradient = gradients[i];
      return gradient && owns(i) ? [{ parameter, ...this.moments[i], gradient }] : [];
    });
    // One call for all parameters that share a learning rate and a weight decay.
    const settingsOf = (parameter: Parameter) => {
      const weightDecay = decays(parameter) ? weight_decay : 0;
      return { lr: lr * lrScale(parameter), weightDecay };
    };
    const groups = new Map<string, typeof all>();
    for (const one of all) {
      const key = JSON.stringify(settingsOf(one.parameter));
      groups.set(key, [...(groups.get(key) ?? []), one]);
    }
    for (const some of groups.values()) {
      const own = settingsOf(some[0].parameter);
      const attributes = { ...own, beta1, beta2, epsilon: EPSILON, step: this.steps, gradientScale };
      const tensors = some.map(({ parameter, gradient, m, v }) => {
        return { parameter: parameter.value, gradient, m: m.value, v: v.value };
      });
      const next = tf.tidy(() => adamW(tensors, attributes));
      some.forEach(({ parameter, m, v }, i) => {
        [parameter.value, m.value, v.value] = next[i];
      });
    }
  }
}
