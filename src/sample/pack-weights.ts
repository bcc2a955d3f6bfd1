import * as tf from '@tensorflow/tfjs';
import type { WeightKind } from '../engine/ops/index.js';
import type { Generator } from '../models/generator/generator.js';

/** Sequences and steps, as far as there are so many, that the logits are compared over. */
const PROBE = { sequences: 2, steps: 16 };
/** Makes codes that are far apart and never twice the same. */
const STRIDE = 1009;

/** Logits (steps·sequences, N) of a few steps over fixed codes. */
function probe(generator: Generator): tf.Tensor {
  const { codebook_size, classes, tokens } = generator.geometry;
  const { sequences } = PROBE;
  const steps = Math.min(PROBE.steps, tokens);
  const cache = generator.createCache(sequences);
  const logits = tf.tidy(() =>
    tf.concat(
      Array.from({ length: steps }, (_, i) => {
        const ids = Array.from({ length: sequences }, (_, b) => {
          const n = (i * sequences + b) * STRIDE;
          return i === 0 ? generator.conditionOf(n % classes) : n % codebook_size;
        });
        return generator.step(tf.tensor1d(ids, 'int32'), cache);
      }),
    ),
  );
  cache.dispose();
  return logits;
}

/**
 * Keeps the weights of a generator's linear layers in fewer bits from now on, for decoding alone, whose time is what
 * reading them takes. Gives how far logits move by it: the root mean square of the difference, over that of the logits
 * about their mean. Throws EngineError where the engine has no kernels for it.
 */
export function packWeights(generator: Generator, kind: Exclude<WeightKind, 'float32'>): number {
  const before = probe(generator);
  for (const p of generator.parameters)
    if (p.shape.length === 2 && !p.name.startsWith('embeddings')) p.pack(kind);
  const after = probe(generator);
  const difference = tf.tidy(() => {
    const spread = before.sub(before.mean(-1, true)).square().mean();
    return after.sub(before).square().mean().div(spread).sqrt().dataSync()[0];
  });
  tf.dispose([before, after]);
  return difference;
}
