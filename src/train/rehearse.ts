import type { Job } from '../job/job.js';
import { turn } from '../job/turn.js';
import { availableMemory, freeDisk, peakMemory } from '../machine.js';
import type { Parameters } from '../nn/parameters.js';
import type { TrainingOptions } from './run-training.js';
import type { Trainer } from './trainer.js';

/** What a run would take. Times in seconds, sizes in bytes. */
export interface Rehearsal {
  label: string;
  /** Of the model, and of all that is trained, the discriminator included. */
  parameters: number;
  steps: number;
  /** Of one step, for each span of steps that are alike; none where there is not the memory to try. */
  secondsPerStep: number[];
  previews: { count: number; seconds: number };
  /** Of the whole run; undefined where no step was tried. */
  seconds?: number;
  memory: {
    /** Weights, their gradients and what the optimizer keeps. */
    state: number;
    /** Of this process so far, activations included. */
    peak: number;
    available: number;
  };
  disk: {
    checkpoint: number;
    /** Checkpoints that are kept at most. */
    kept: number;
    /** Of all checkpoints that are kept, and the one that is being written. */
    needed: number;
    free: number;
  };
}

/** Steps come in pairs, for in adversarial phases every other one is the discriminator's. */
const PAIR = 2;
/** Pairs of steps are measured for so long, but one at least and `MOST_PAIRS` at most. */
const MEASURE_SECONDS = 3;
const MOST_PAIRS = 10;
const BYTES = 4;

const sizeOf = (parameters: Parameters) => [...parameters].reduce((sum, p) => sum + p.size, 0);

/** Seconds of one step from `state` on, after one to warm up. */
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
 * Finds out what a run would take, by a few steps on fresh values, and its preview once; writes nothing. Tries no step
 * where not even weights and optimizer fit into the memory.
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
  const model = sizeOf(trainer.model);
  const parts = Object.values(trainer.trainingParts).reduce((sum, one) => sum + sizeOf(one), 0);
  const checkpoint = BYTES * (model + parts);
  // The optimizer keeps two numbers for each weight that is trained, and a gradient is as large as one.
  const state = checkpoint + (BYTES * sizeOf(trainer.trainingParts.optimizer)) / 2;
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
        `${label}: no step is tried, for weights, gradients and optimizer alone do not fit the memory`,
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
