import * as tf from '@tensorflow/tfjs';
import { type Parameter, Parameters } from './parameters.js';

/** An exponential moving average of parameters, under the same names. */
export class Ema {
  readonly parameters = new Parameters();

  constructor(
    private readonly source: readonly Parameter[],
    private readonly decay: number,
  ) {
    const scope = this.parameters.scope();
    for (const p of source) scope.parameter(p.name, p.shape, p.initializer);
  }

  /** Starts the average at the current parameters. */
  initialize(): void {
    for (const p of this.source) this.parameters.get(p.name)!.value = p.value.clone();
  }

  /** After step t (from 1): average ← d·average + (1 − d)·parameter, d = min(decay, (1 + t)/(10 + t)). */
  update(t: number): void {
    const d = Math.min(this.decay, (1 + t) / (10 + t));
    for (const p of this.source) {
      if (p.frozen) continue;
      const average = this.parameters.get(p.name)!;
      average.value = tf.tidy(() => average.value.mul(d).add(p.value.mul(1 - d)));
    }
  }
}
