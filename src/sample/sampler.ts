import * as tf from '@tensorflow/tfjs';
import { type DrawOptions, drawCodes, drawStep, Replayed } from '../engine/ops/index.js';
import { turn } from '../job/job.js';
import type { Generator, KVCache } from '../models/generator/generator.js';
import type { Random } from '../random.js';

/** Classifier-free guidance whose scale grows along the sequence (AliTok, arXiv 2506.05289). */
export interface Guidance {
  /** s; 0 turns guidance off. */
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

/** Converts a config's section `sample`. */
export function sampleOptions(
  sample: DrawOptions & { guidance_scale: number; guidance_power: number },
): SampleOptions {
  const { guidance_scale: scale, guidance_power: power, temperature, top_k, top_p } = sample;
  return { guidance: { scale, power }, temperature, top_k, top_p };
}

/** Everything that is known before sampling starts. */
interface Plan {
  /** Vocabulary indices for the rows of the cache: the images' classes and, with guidance, as many times "no class". */
  conditions: readonly number[];
  images: number;
  /** Random numbers (T, images). */
  uniforms: readonly (readonly number[])[];
  /** Guidance scale of each step; absent without guidance. */
  scales?: readonly number[];
  draw: DrawOptions;
}

/** Runs the steps one by one; `codes` returns (B, T) int32 at the end. */
interface Steps {
  next(): void;
  codes(): tf.Tensor2D;
  close(): void;
}

/** Steps as operations that the host issues one by one. */
function fromHost(generator: Generator, cache: KVCache, plan: Plan): Steps {
  const { conditions, uniforms, scales, draw } = plan;
  const drawn: tf.Tensor1D[] = [];
  return {
    next() {
      const i = drawn.length;
      const last = drawn.at(-1);
      // Codes stay on the device, so that a step need not wait until those of the previous one are read.
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

/** The same steps for engines that can run them without the host: their whole state is on the device. */
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
 * Samples the codes of one image for each class index (the index after the last class is "no class"): (B, T) int32. Where no
 * image has a class, guidance has nothing to guide and is left out: both of its halves would be the same.
 * @param randoms a stream for each image, so that an image does not depend on its batch; not needed for temperature 0
 * @param onStep called with the number of codes drawn so far
 * @param steps stop after this many of the T codes
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
  const guided = guidance.scale !== 0 && classes.some((c) => c !== generator.noClass);
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
