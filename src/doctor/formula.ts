import * as tf from '@tensorflow/tfjs';
import type { Parameters } from '../nn/parameters.js';

/** Numbers in [-1, 1) that any language can compute: a hash of the index (the last step of MurmurHash3). */
export function uniformNumbers(size: number, seed: number): Float64Array {
  return Float64Array.from({ length: size }, (_, i) => {
    let h = (i + Math.imul(seed, 0x9e3779b1)) >>> 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (2 * ((h ^ (h >>> 16)) >>> 0)) / 2 ** 32 - 1;
  });
}

/** Sets parameters to values that a formula computes from the order of their names and their shapes; buffers to zero. */
export function fillByFormula(parameters: Parameters, seed: number): void {
  const trained = [...parameters].filter((p) => !p.buffer).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const p of parameters) if (p.buffer) p.value = tf.zeros([...p.shape]);
  trained.forEach((p, j) => {
    const vector = p.shape.length === 1;
    const fanIn = p.shape.slice(1).reduce((a, b) => a * b, 1);
    const [scale, offset] = vector ? [0.1, p.name.endsWith('bias') ? 0 : 1] : [Math.sqrt(3 / fanIn), 0];
    const values = Float32Array.from(
      uniformNumbers(p.size, seed + j),
      (u) => Math.fround(u) * Math.fround(scale) + offset,
    );
    p.value = tf.tensor(values, [...p.shape]);
  });
}
