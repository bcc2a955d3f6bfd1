import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { expect } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import type { Parameters } from '../../src/nn/parameters.js';

/** Values computed by the public reference implementation, with the model's parameters under `w.`. */
export async function openGolden(name: string) {
  const path = fileURLToPath(new URL(`../fixtures/goldens/${name}.safetensors`, import.meta.url));
  const file = await openSafetensors(path);
  const stored = new Map<string, ArrayLike<number | bigint>>();
  for (const [key, { dtype }] of file.tensors)
    stored.set(key, dtype === 'I64' ? await file.read(key) : await file.readFloat32(key));
  await file.close();
  const shape = (key: string) => [...file.tensors.get(key)!.shape];
  const values = (key: string) => stored.get(key) as Float32Array;
  return {
    metadata: file.metadata,
    names: [...file.tensors.keys()],
    shape,
    values,
    tensor: (key: string) => tf.tensor(values(key), shape(key)),
    integers: (key: string) => Array.from(stored.get(key)!, Number),
    scalar: (key: string) => values(key)[0],
    /** Loads the tensors under `w.` into a model, strictly. */
    async load(parameters: Parameters) {
      const own = [...file.tensors].filter(([key]) => key.startsWith('w.'));
      await parameters.load({
        path,
        tensors: new Map(own.map(([key, info]) => [key.slice(2), info])),
        readFloat32: async (key) => values(`w.${key}`),
      });
    },
  };
}

/** ‖a − b‖ / ‖b‖ */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-30));
}

/** Asserts a relative L2 error of at most `tolerance`, and the same number of elements. */
export function expectClose(
  name: string,
  actual: tf.Tensor | number,
  expected: ArrayLike<number>,
  tolerance = 1e-4,
) {
  const values = typeof actual === 'number' ? [actual] : actual.dataSync();
  expect(values.length, `${name}: elements`).toBe(expected.length);
  expect(relativeError(values, expected), `${name}: relative error`).toBeLessThanOrEqual(tolerance);
}

/**
 * Asserts that a gradient through ReLUs or maxima is close. Where two numbers differ by rounding alone, an engine may take the
 * other one, which changes the gradient of a patch of the image. So half of the elements must have a small error (relative to
 * the root mean square of all), and all together a relative L2 error of at most 1 %.
 */
export function expectCloseGradient(name: string, actual: tf.Tensor, expected: ArrayLike<number>) {
  expectClose(name, actual, expected, 1e-2);
  const scale = Math.sqrt(Array.from(expected).reduce((sum, x) => sum + x * x, 0) / expected.length);
  const errors = actual.dataSync().map((x, i) => Math.abs(x - expected[i]));
  const median = errors.sort()[errors.length >> 1];
  expect(median / scale, `${name}: median error`).toBeLessThanOrEqual(1e-5);
}

export const NCHW_TO_NHWC = [0, 2, 3, 1];
export const NHWC_TO_NCHW = [0, 3, 1, 2];
