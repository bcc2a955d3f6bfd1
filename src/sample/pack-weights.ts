import * as tf from '@tensorflow/tfjs';
import type { WeightKind } from '../engine/ops/index.js';
import type { Generator } from '../models/generator/generator.js';

/** Maximum number of sequences and steps over which logits are compared. */
const PROBE = { sequences: 2, steps: 16 };
/** Distance between the codes of the probe, so that they are spread over the codebook. */
const STRIDE = 1009;

/** Logits (steps·sequences, N) of a few steps with fixed codes. */
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
 * Converts the weights of a generator's linear layers to fewer bits, for sampling only: a step of decoding takes as long
 * as reading the weights. Returns how far the logits move: the root mean square of the difference, relative to the
 * standard deviation of the logits. Throws EngineError if the engine has no kernels for it.
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
