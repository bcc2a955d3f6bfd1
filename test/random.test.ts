import { expect, test } from 'vitest';
import { Random } from '../src/random.js';

const draws = (random: Random, n = 5) => Array.from({ length: n }, () => random.bits());

test('a stream depends only on its seed and purpose', () => {
  expect(draws(Random.of(1, 'crops'))).toEqual(draws(Random.of(1, 'crops')));
  expect(draws(Random.of(1, 'crops'))).not.toEqual(draws(Random.of(2, 'crops')));
  expect(draws(Random.of(1, 'crops'))).not.toEqual(draws(Random.of(1, 'dropout')));
});

test('a fork does not depend on how many numbers its parent has drawn', () => {
  const parent = Random.of(3);
  const early = draws(parent.fork('a'));
  draws(parent, 100);
  expect(draws(parent.fork('a'))).toEqual(early);
  expect(draws(parent.fork('b'))).not.toEqual(early);
});

test('a stream saved as JSON continues where it was', () => {
  const random = Random.of(4, 'x');
  draws(random, 17);
  const saved = JSON.parse(JSON.stringify(random.state)) as number[];
  expect(draws(Random.fromState(saved))).toEqual(draws(random));
});

test('uniform and normal numbers have the right moments', () => {
  const random = Random.of(5);
  const n = 50_000;
  const moments = (draw: () => number) => {
    const values = Array.from({ length: n }, draw);
    const mean = values.reduce((a, b) => a + b) / n;
    return { mean, variance: values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n, values };
  };
  const uniform = moments(() => random.uniform());
  expect(uniform.mean).toBeCloseTo(1 / 2, 2);
  expect(uniform.variance).toBeCloseTo(1 / 12, 2);
  expect(uniform.values.every((x) => x >= 0 && x < 1)).toBe(true);
  const normal = moments(() => random.normal());
  expect(Math.abs(normal.mean)).toBeLessThan(0.02);
  expect(Math.abs(normal.variance - 1)).toBeLessThan(0.03);
  const beyond2 = normal.values.filter((x) => Math.abs(x) > 2).length / n;
  expect(Math.abs(beyond2 - 0.0455)).toBeLessThan(0.005);
});

test('a permutation contains every number once, and all orders of three occur', () => {
  expect([...Random.of(6).permutation(100)].sort((a, b) => a - b)).toEqual(
    Array.from({ length: 100 }, (_, i) => i),
  );
  const random = Random.of(7);
  const seen = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const order = random.permutation(3).join();
    seen.set(order, (seen.get(order) ?? 0) + 1);
  }
  expect(seen.size).toBe(6);
  for (const count of seen.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
});
