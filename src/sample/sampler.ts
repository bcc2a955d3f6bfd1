import * as tf from '@tensorflow/tfjs';
import { type DrawOptions, drawCodes, drawStep, Replayed } from '../engine/ops/index.js';
import { turn } from '../job/turn.js';
import type { Generator, KVCache } from '../models/generator/generator.js';
import type { Random } from '../random.js';

/** Classifier-free guidance that grows along the sequence (AliTok, arXiv 2506.05289). */
export interface Guidance {
  /** s; 0 for no guidance at all. */
  scale: number;
  power: number;
}

/** scale_i = 1 + (s − 1)·½(1 − cos(π·(i/T)^power)) for step i of T. */
export function guidanceScale(i: number, steps: number, { scale, power }: Guidance): number {
  return 1 + (scale - 1) * 0.5 * (1 - Math.cos(Math.PI * (i / steps) ** power));
}

export interface SampleOptions extends DrawOptions {
  guidance: Guidance;
}

/** The options of a config's section `sample`. */
export function sampleOptions(
  sample: DrawOptions & { guidance_scale: number; guidance_power: number },
): SampleOptions {
  const { guidance_scale: scale, guidance_power: power, temperature, top_k, top_p } = sample;
  return { guidance: { scale, power }, temperature, top_k, top_p };
}

/** What is sampled: conditions in the order of the cache's rows, and each step's random numbers and scale of guidance. */
interface Plan {
  /** Vocabulary indices: of the images' classes and, with guidance, as many of "no class". */
  conditions: readonly number[];
  images: number;
  /** For each of the T steps a number for each image. */
  uniforms: readonly (readonly number[])[];
  /** For each step; absent without guidance. */
  scales?: readonly number[];
  draw: DrawOptions;
}

/** Makes one step after the other, and in the end gives the codes (B, T) int32. */
interface Steps {
  next(): void;
  codes(): tf.Tensor2D;
  close(): void;
}

/** Each step told to the engine by its operations, with what the host knows of it. */
function fromHost(generator: Generator, cache: KVCache, plan: Plan): Steps {
  const { conditions, uniforms, scales, draw } = plan;
  const drawn: tf.Tensor1D[] = [];
  return {
    next() {
      const i = drawn.length;
      const last = drawn.at(-1);
      // The codes stay where they are computed: a step does not wait for the one before it to be read.
      const codes = tf.tidy(() => {
        const ids = !last ? tf.tensor1d([...conditions], 'int32') : scales ? tf.concat1d([last, last]) : last;
        let logits = generator.step(ids, cache);
        if (scales) {
          const [conditional, free] = tf.split(logits, 2);
          logits = free.add(conditional.sub(free).mul(scales[i]));
        }
        return drawCodes(logits, tf.tensor1d([...uniforms[i]]), draw);
      });
      drawn.push(codes);
    },
    codes: () => tf.stack(drawn, 1) as tf.Tensor2D,
    close: () => tf.dispose(drawn),
  };
}

/** The same steps for engines that need the host for none of them: all that changes is on the device. */
function onDevice(generator: Generator, cache: KVCache, plan: Plan): Steps {
  const { conditions, images, uniforms, scales, draw } = plan;
  const steps = uniforms.length;
  const state = tf.tidy(() => {
    const variable = <T extends tf.Tensor>(values: T) => tf.variable(values, false) as unknown as T;
    return {
      position: variable(tf.tensor1d([0], 'int32')),
      ids: variable(tf.tensor1d([...conditions], 'int32')),
      codes: variable(tf.fill([images, steps], 0, 'int32') as tf.Tensor2D),
      uniforms: variable(tf.tensor2d(uniforms.flat(), [steps, images])),
      ...(scales && { scales: variable(tf.tensor1d([...scales])) }),
    };
  });
  const step = new Replayed(() =>
    tf.tidy(() => drawStep(generator.stepAt(state.position, state.ids, cache), state, draw)),
  );
  return {
    next: () => step.run(),
    codes: () => state.codes.clone(),
    close() {
      step.close();
      tf.dispose(state);
    },
  };
}

/**
 * Draws the codes of one image for each class index (the index after the last class is "no class").
 * `randoms`: one stream for each image, so that an image does not depend on its batch; not needed for temperature 0.
 * Gives (B, T) int32. `onStep` is told how many of the T codes are done; `steps` ends after so many.
 */
export async function sampleCodes(
  generator: Generator,
  classes: readonly number[],
  { guidance, ...draw }: SampleOptions,
  randoms: readonly Random[] = [],
  { onStep = () => {}, steps }: { onStep?: (done: number) => void; steps?: number } = {},
): Promise<tf.Tensor2D> {
  const { tokens: all } = generator.geometry;
  const count = steps ?? all;
  const eachStep = <T>(value: (i: number) => T) => Array.from({ length: count }, (_, i) => value(i));
  const guided = guidance.scale !== 0;
  const without = guided ? classes.map(() => generator.noClass) : [];
  const plan: Plan = {
    conditions: [...classes, ...without].map((c) => generator.conditionOf(c)),
    images: classes.length,
    uniforms: eachStep(() => classes.map((_, b) => (draw.temperature === 0 ? 0 : randoms[b].uniform()))),
    scales: guided ? eachStep((i) => guidanceScale(i, all, guidance)) : undefined,
    draw,
  };
  const cache = generator.createCache(plan.conditions.length);
  let sampling: Steps | undefined;
  try {
    sampling = (cache.fused ? onDevice : fromHost)(generator, cache, plan);
    for (let i = 0; i < count; i++) {
      sampling.next();
      onStep(i + 1);
      await turn();
    }
    return sampling.codes();
  } finally {
    sampling?.close();
    cache.dispose();
  }
}
