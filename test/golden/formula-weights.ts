import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Bits of a 32-bit hash of i and the seed, spread over [−1, 1). */
function uniform(i: number, seed: number): number {
  let h = (i + Math.imul(seed, 0x9e3779b1)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  h = (h ^ (h >>> 16)) >>> 0;
  return (2 * h) / 2 ** 32 - 1;
}

function range(name: string, shape: readonly number[]): [scale: number, offset: number] {
  if (name.endsWith('running_var')) return [0.2, 1];
  if (name.endsWith('running_mean') || name.endsWith('bias')) return [0.1, 0];
  if (name.endsWith('layer_scale')) return [0.1, 0.5];
  if (shape.length === 1) return [0.1, 1];
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  return [Math.sqrt((shape.length === 4 ? 6 : 3) / fanIn), 0];
}

/** The weights for the goldens of the large networks, computed from name, shape and index. */
export function formulaWeights(name: string, shape: readonly number[], seed: number): Float32Array {
  const [scale, offset] = range(name, shape).map(Math.fround);
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < values.length; i++)
    values[i] = Math.fround(Math.fround(uniform(i, seed)) * scale) + offset;
  return values;
}

/** Names of the networks' tensors, in the order of their seeds. */
export const names = JSON.parse(
  readFileSync(fileURLToPath(new URL('../fixtures/goldens/perceptual_names.json', import.meta.url)), 'utf8'),
) as Record<'vgg' | 'lin', string[]> & Record<'convnext' | 'inception', [string, number[]][]>;
