import * as tf from '@tensorflow/tfjs';
import { type EngineName, type EngineOptions, openEngine } from '../engine/index.js';
import { Generator } from '../models/generator.js';
import { normal } from '../nn/initializers.js';
import { Random } from '../random.js';

/** Small, but with everything that a generator has; heads 16 wide, as fast kernels want them. */
const SIZES = { width: 64, layers: 2, heads: 4, classes: 3, codebook_size: 48, prefix_tokens: 3, grid: 4 };
const SEED = 7;
const BATCH = 3;

/** Logits of one forward pass, and the gradient of its loss by every parameter. */
function forwardAndBackward(): Float32Array[] {
  const generator = new Generator(SIZES);
  const random = Random.of(SEED, 'self-test');
  const std = normal(0.1);
  for (const p of generator.parameters) p.value = std(p.shape, random.fork(p.name));
  const results = tf.tidy(() => {
    const { tokens, codebook_size } = generator.geometry;
    const at = (n: number) => Int32Array.from({ length: n }, (_, i) => (i * 7) % codebook_size);
    const codes = tf.tensor2d(at(BATCH * tokens), [BATCH, tokens], 'int32');
    const conditions = [0, 1, generator.noClass].map((c) => generator.conditionOf(c));
    const forward = () => generator.forward(tf.tensor1d(conditions, 'int32'), codes);
    const values = [...generator.parameters].map((p) => p.value);
    const gradients = tf.grads(() => generator.loss(forward(), codes))(values);
    return [forward(), ...gradients].map((tensor) => tensor.dataSync() as Float32Array);
  });
  generator.dispose();
  return results;
}

/**
 * Runs a small generator forward and backward on an engine and in plain JavaScript, and gives the largest error of any
 * tensor relative to that tensor's largest value. Leaves the engine open. Throws EngineError where it cannot run.
 */
export async function selfTest(engine: EngineName, options: EngineOptions): Promise<number> {
  await openEngine('cpu');
  const expected = forwardAndBackward();
  await openEngine(engine, options);
  const errors = forwardAndBackward().map((values, i) => {
    const largest = expected[i].reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    return values.reduce((a, b, j) => Math.max(a, Math.abs(b - expected[i][j])), 0) / largest;
  });
  return Math.max(...errors);
}
