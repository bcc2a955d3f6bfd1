import * as tf from '@tensorflow/tfjs';
import { type DrawOptions, drawCodes } from '../engine/ops/index.js';
import { turn } from '../job/turn.js';
import type { Generator, KVCache } from '../models/generator.js';
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

/** Logits (B, N) of the next code; with guidance the cache holds 2B rows, with the class and without. */
function nextLogits(
  generator: Generator,
  ids: tf.Tensor1D,
  cache: KVCache,
  scale: number | undefined,
): tf.Tensor2D {
  const logits = generator.step(ids, cache);
  if (scale === undefined) return logits;
  const [conditional, free] = tf.split(logits, 2);
  return free.add(conditional.sub(free).mul(scale));
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
  const tokens = steps ?? all;
  const guided = guidance.scale !== 0;
  const conditions = guided ? [...classes, ...classes.map(() => generator.noClass)] : [...classes];
  const cache = generator.createCache(conditions.length);
  const drawn: tf.Tensor1D[] = [];
  try {
    for (let i = 0; i < tokens; i++) {
      const scale = guided ? guidanceScale(i, all, guidance) : undefined;
      const uniforms = classes.map((_, b) => (draw.temperature === 0 ? 0 : randoms[b].uniform()));
      // The codes stay where they are computed: a step does not wait for the one before it to be read.
      const codes = tf.tidy(() => {
        const ids =
          i === 0
            ? tf.tensor1d(
                conditions.map((c) => generator.conditionOf(c)),
                'int32',
              )
            : guided
              ? tf.concat1d([drawn[i - 1], drawn[i - 1]])
              : drawn[i - 1];
        return drawCodes(nextLogits(generator, ids, cache, scale), tf.tensor1d(uniforms), draw);
      });
      drawn.push(codes);
      onStep(i + 1);
      await turn();
    }
    return tf.stack(drawn, 1) as tf.Tensor2D;
  } finally {
    cache.dispose();
    tf.dispose(drawn);
  }
}
