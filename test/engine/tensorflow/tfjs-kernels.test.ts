import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { compareOperators } from '../../../src/doctor/compare-operators.js';
import { OPERATOR_CHECKS } from '../../../src/doctor/operators.js';
import { openEngine } from '../../../src/engine/index.js';
import { canRun } from '../../support/engines.js';

// What tfjs-core's tests (test/tfjs) and the table of special values do not cover.

const numbers = (shape: number[]) =>
  tf.tensor(
    Float32Array.from({ length: tf.util.sizeFromShape(shape) }, (_, i) => Math.sin(i * i)),
    shape,
  );

describe.skipIf(!canRun('tensorflow'))('kernels of the tensorflow engine', () => {
  it.runIf(canRun('libtorch'))('compute every operation of the doctor as libtorch does', async () => {
    const sides = {
      reference: () => openEngine('libtorch', { device: 'cpu' }),
      tested: () => openEngine('tensorflow'),
      precision: {},
    };
    const wrong: string[] = [];
    let count = 0;
    for await (const { name, passed, error, worst, failure } of compareOperators(sides)) {
      count += 1;
      if (!passed) wrong.push(`${name}: ${failure ?? `${worst} is off by ${error}`}`);
    }
    // tfjs's own kernels, and TensorFlow's, give the type of the weights, of which there are none.
    expect(wrong).toEqual(['bincount: y is float32 [64], not int32 [64]']);
    expect(count).toBe(OPERATOR_CHECKS.length);
  });

  describe('of tfjs', () => {
    beforeAll(() => openEngine('tensorflow'));

    it.each([
      [1, 1],
      [2, 2],
      [
        [
          [0, 0],
          [2, 1],
          [0, 1],
          [0, 0],
        ] as tf.backend_util.ExplicitPadding,
        2,
      ],
    ])('conv2d pads by %j, with stride %i', (pad, stride) => {
      const x = numbers([2, 7, 6, 3]) as tf.Tensor4D;
      const filter = numbers([3, 3, 3, 4]) as tf.Tensor4D;
      const sides =
        typeof pad === 'number'
          ? [
              [0, 0],
              [pad, pad],
              [pad, pad],
              [0, 0],
            ]
          : pad;
      const padded = (x: tf.Tensor4D, filter: tf.Tensor4D) =>
        tf.conv2d(tf.pad(x, sides as [number, number][]), filter, stride, 'valid');
      const expected = padded(x, filter);
      const y = (x: tf.Tensor4D, filter: tf.Tensor4D) =>
        tf.conv2d(x, filter, stride, pad, 'NHWC', 1, 'floor');
      const dy = numbers(expected.shape);
      const gradients = (run: typeof y) => tf.grads(run as never)([x, filter], dy);
      const [found, wanted] = [
        [y(x, filter), ...gradients(y)],
        [expected, ...gradients(padded)],
      ].map((tensors) => tensors.map((t) => t.dataSync()));
      wanted.forEach((values, i) => {
        expect(found[i].length).toBe(values.length);
        expect(Math.max(...values.map((v, at) => Math.abs(v - found[i][at])))).toBeLessThan(1e-4);
      });
    });

    it('pools integers', () => {
      const x = tf.tensor4d([3, 1, 4, 1], [1, 2, 2, 1], 'int32');
      expect([...tf.maxPool(x, 2, 1, 'valid').dataSync()]).toEqual([4]);
    });

    it('gather refuses rows that do not exist', () => {
      const x = numbers([4, 2]);
      for (const index of [4, -1])
        expect(() => tf.gather(x, tf.tensor1d([0, index], 'int32'))).toThrow(
          `TensorFlow: GatherV2: indices[1] = ${index} is not in [0, 4)`,
        );
    });

    it('multinomial draws the same from the same seed, and something else from another', () => {
      const draws = (seed: number) =>
        [...tf.multinomial(numbers([1, 50]).reshape([50]) as tf.Tensor1D, 100, seed).dataSync()].join();
      for (const [seed, other] of [
        [0.25, 0.5],
        [3, 4],
      ]) {
        expect(draws(seed)).toBe(draws(seed));
        expect(draws(seed)).not.toBe(draws(other));
      }
    });
  });
});
