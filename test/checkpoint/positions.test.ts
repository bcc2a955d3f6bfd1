import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { resamplePositions, type TableLayout } from '../../src/checkpoint/positions.js';

interface Case {
  from: number;
  to: number;
  grid: number[];
  row: number[];
  grid_resampled: number[];
  row_resampled: number[];
}

/** Made by PyTorch (positions.py). */
const { channels, cases } = JSON.parse(
  readFileSync(new URL('../fixtures/positions.json', import.meta.url), 'utf8'),
) as { channels: number; cases: Case[] };

/** The largest error, relative to the largest number. */
function error(found: ArrayLike<number>, expected: readonly number[]): number {
  expect(found.length).toBe(expected.length);
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(found[i] - value))) / largest;
}

const front = [11, 12, 13, 21, 22, 23];
const extra = [31, 32, 33];
const layout = (grid: number, prefix: number, frontRows = 2): TableLayout => ({
  front: frontRows,
  prefix,
  grid,
});

describe.each(cases)('from $from × $from to $to × $to', ({ from: g, to: h, grid, row, ...expected }) => {
  const resample = (values: number[], from: TableLayout, to: TableLayout) =>
    resamplePositions(Float32Array.from(values), channels, from, to);

  it('resamples a grid as PyTorch does', () => {
    const found = resample(grid, layout(g, 0, 0), layout(h, 0, 0));
    expect(error(found, expected.grid_resampled)).toBeLessThanOrEqual(1e-6);
  });

  it.each([
    ['with an extra prefix row in both', 1, 1],
    ['without one', 0, 0],
    ['with one in the old layout only', 1, 0],
    ['with one in the new layout only', 0, 1],
  ])('resamples the prefix in one dimension, %s', (_, before, after) => {
    const values = [...front, ...(before ? extra : []), ...row, ...grid];
    const found = resample(values, layout(g, g + before), layout(h, h + after));
    const prefix = expected.row_resampled;
    const first = before ? extra : prefix.slice(0, channels);
    expect(
      error(found, [...front, ...(after ? first : []), ...prefix, ...expected.grid_resampled]),
    ).toBeLessThan(1e-6);
    expect([...found.subarray(0, front.length)]).toEqual(front);
    if (before && after) expect([...found.subarray(front.length, front.length + channels)]).toEqual(extra);
  });
});

it('keeps constants, larger and smaller', () => {
  for (const to of [1, 2, 5, 6, 13, 32]) {
    const values = new Float32Array((1 + 6 + 25) * 2).fill(0.3);
    const found = resamplePositions(values, 2, layout(5, 6, 1), layout(to, to + 1, 1));
    expect(found).toHaveLength((1 + to + 1 + to * to) * 2);
    for (const value of found) expect(value).toBeCloseTo(0.3, 6);
  }
});

it('gives the same values for the same layout, and for the same grid with another prefix', () => {
  const values = Float32Array.from({ length: (1 + 5 + 16) * 2 }, (_, i) => (i === 3 ? -0 : Math.sin(i)));
  expect(resamplePositions(values, 2, layout(4, 5, 1), layout(4, 5, 1))).toEqual(values);
  const shorter = resamplePositions(values, 2, layout(4, 5, 1), layout(4, 4, 1));
  expect([...shorter]).toEqual([...values.subarray(0, 2), ...values.subarray(4)]);
});

it('refuses what it cannot resample', () => {
  const resample = (rows: number, from: TableLayout, to: TableLayout) =>
    resamplePositions(new Float32Array(rows * 2), 2, from, to);
  expect(() => resample(20, layout(4, 5, 0), layout(8, 9, 0))).toThrow('40 numbers are not 21 rows of 2');
  expect(() => resample(22, layout(4, 5, 1), layout(8, 9, 32))).toThrow(
    '32 front rows cannot be made of 1: draw them anew',
  );
  expect(() => resample(16, layout(4, 0, 0), layout(8, 9, 0))).toThrow(
    'a prefix of 9 positions cannot be made of 0',
  );
  expect(() => resample(19, layout(4, 3, 0), layout(8, 9, 0))).toThrow(
    'a prefix of 3 positions with 4 patches along a side',
  );
});
