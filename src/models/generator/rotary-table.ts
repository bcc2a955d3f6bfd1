import * as tf from '@tensorflow/tfjs';
import type { GeneratorGeometry } from '../geometry.js';

const BASE = 10000;

/**
 * Angles of the generator's rotary embedding as cos and sin (1 + T, D/2).
 * Row 0 is the condition: all zeros, so its query and key vanish. Prefix tokens are numbered from 0.
 * Image tokens rotate half of the pairs by their row and half by their column, both counted from k.
 */
export function rotaryTable({ headWidth, prefix_tokens, grid }: GeneratorGeometry): {
  cos: tf.Tensor2D;
  sin: tf.Tensor2D;
} {
  const pairs = headWidth / 2;
  const line = (position: number) =>
    Array.from({ length: pairs }, (_, j) => position * BASE ** ((-2 * j) / headWidth));
  const axis = (position: number) =>
    Array.from({ length: pairs / 2 }, (_, j) => position * BASE ** ((-2 * j) / pairs));
  const angles: number[][] = [];
  for (let i = 0; i < prefix_tokens; i++) angles.push(line(i));
  for (let row = 0; row < grid; row++)
    for (let column = 0; column < grid; column++)
      angles.push([...axis(prefix_tokens + row), ...axis(prefix_tokens + column)]);
  const zero = new Array<number>(pairs).fill(0);
  return {
    cos: tf.tensor2d([zero, ...angles.map((row) => row.map(Math.cos))]),
    sin: tf.tensor2d([zero, ...angles.map((row) => row.map(Math.sin))]),
  };
}
