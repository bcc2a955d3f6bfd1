import { TrainingError } from '../../errors.js';
import type { Metrics } from '../../run/metrics.js';

/** How many images of a batch a message names. */
const SHOWN = 4;

/** All that is known of a step that was not made. */
export interface BadStep {
  step: number;
  lr: number;
  /** Loss terms and other numbers of the batch. */
  metrics: Metrics;
  grad_norm: number;
  /** This process's part of the batch: image files, or images and crops of a token cache. */
  batch: Record<string, readonly (string | number)[]>;
}

/** A batch whose loss or gradient is not finite. The step was not made; only the position in the data has moved. */
export class NonFiniteError extends TrainingError {
  constructor(readonly seen: BadStep) {
    const { step, lr, metrics, grad_norm, batch } = seen;
    const numbers = Object.entries({ ...metrics, 'gradient norm': grad_norm, 'learning rate': lr });
    const values = numbers.map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`).join(', ');
    const images = Object.entries(batch).map(([name, all]) => {
      const more = all.length > SHOWN ? `, … (${all.length} in all)` : '';
      return `${name} ${all.slice(0, SHOWN).join(', ')}${more}`;
    });
    super(`step ${step} was not made: loss or gradient is not finite (${values}; ${images.join('; ')})`);
  }
}
