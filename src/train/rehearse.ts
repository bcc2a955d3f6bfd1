import type { Job } from '../job/job.js';
import { turn } from '../job/job.js';
import { availableMemory, freeDisk, peakMemory } from '../machine.js';
import type { Saved } from '../nn/parameters.js';
import { sizeOf } from '../shapes.js';
import type { TrainingOptions } from './run-training.js';
import type { Trainer } from './trainer.js';

/** What a run would cost. Times are in seconds, sizes in bytes. */
export interface Rehearsal {
  label: string;
  /** Number of parameters of the model. */
  parameters: number;
  steps: number;
  /** Of one step, for each stretch of equal steps; empty where memory does not suffice to try one. */
  secondsPerStep: number[];
  previews: { count: number; seconds: number };
  /** Of the whole run; undefined if no step was tried. */
  seconds?: number;
  memory: {
    /** Weights, gradients and optimizer moments. */
    state: number;
    /** Peak of this process so far, activations included. */
    peak: number;
    available: number;
  };
  disk: {
    checkpoint: number;
    /** Number of checkpoints kept at most. */
    kept: number;
    /** For all checkpoints kept, and the one being written. */
    needed: number;
    free: number;
  };
}

/** Steps are timed in pairs: in adversarial phases every second step is the discriminator's. */
const PAIR = 2;
/** Time to spend on measuring, with at least one pair and at most `MOST_PAIRS`. */
const MEASURE_SECONDS = 3;
const MOST_PAIRS = 10;
const BYTES = 4;

const countOf = (parameters: Iterable<Pick<Saved, 'shape'>>) =>
  [...parameters].reduce((sum, { shape }) => sum + sizeOf(shape), 0);

/** Seconds per step from `state` on, after one warm-up step. */
async function timeSteps(trainer: Trainer, state: object): Promise<number> {
  const steps = async (count: number) => {
    trainer.restore(state);
    let done = 0;
    for (; done < count && !trainer.finished; done++) await trainer.step();
    await turn();
    return done;
  };
  await steps(1);
  let [seconds, count] = [0, 0];
  for (let pair = 0; pair < MOST_PAIRS && (pair === 0 || seconds < MEASURE_SECONDS); pair++) {
    const start = performance.now();
    count += await steps(PAIR);
    seconds += (performance.now() - start) / 1000;
  }
  return seconds / count;
}

/**
 * Estimates the cost of a run from a few steps on freshly initialized parameters and one preview; writes nothing. No step
 * is tried where weights, gradients and optimizer alone do not fit into memory.
 */
export async function rehearse(
  trainer: Trainer,
  { label, folder, config, preview }: TrainingOptions,
  { engine, reporter }: Job,
): Promise<Rehearsal> {
  const { images_every, keep_checkpoints, keep_every, keep_best } = config.logging;
  const kept =
    keep_checkpoints +
    (keep_every > 0 ? Math.floor(trainer.totalSteps / keep_every) : 0) +
    (keep_best === null ? 0 : 1);
  const model = countOf(trainer.model);
  const saved = countOf(trainer.saved ?? trainer.model);
  const parts = Object.values(trainer.trainingParts).reduce((sum, one) => sum + countOf(one), 0);
  const checkpoint = BYTES * (saved + parts);
  // Adapters are part of the model, too.
  const held = new Set([trainer.model, ...Object.values(trainer.trainingParts)].flatMap((one) => [...one]));
  // The optimizer has two moments for each trained weight; the gradient is as large as one of them.
  const state = BYTES * countOf(held) + (BYTES * countOf(trainer.trainingParts.optimizer)) / 2;
  const available = availableMemory();
  const found: Rehearsal = {
    label,
    parameters: model,
    steps: trainer.totalSteps,
    secondsPerStep: [],
    previews: { count: preview ? Math.ceil(trainer.totalSteps / images_every) : 0, seconds: 0 },
    memory: { state, peak: 0, available },
    disk: {
      checkpoint,
      kept,
      needed: checkpoint * (kept + 1),
      free: await freeDisk(folder),
    },
  };
  try {
    if (state > available && !/\bcuda\b/.test(engine.description)) {
      reporter.warn(
        `${label}: no step is tried, because weights, gradients and optimizer alone do not fit into memory`,
      );
      return found;
    }
    trainer.initialize();
    const spans = trainer.spans ?? [{ steps: trainer.totalSteps, state: trainer.state }];
    let seconds = 0;
    for (const span of spans) {
      const each = await timeSteps(trainer, span.state);
      found.secondsPerStep.push(each);
      seconds += each * span.steps;
    }
    if (preview) {
      const start = performance.now();
      await preview();
      found.previews.seconds = (performance.now() - start) / 1000;
    }
    found.seconds = seconds + found.previews.count * found.previews.seconds;
    found.memory.peak = peakMemory();
    return found;
  } finally {
    await trainer.close?.();
  }
}
