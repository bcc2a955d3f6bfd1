import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { pruneCheckpoints, type Retention } from '../../src/checkpoint/retention.js';
import { checkpointFolder } from '../../src/checkpoint/run-files.js';

let run: string;
beforeEach(() => {
  run = mkdtempSync(join(tmpdir(), 'alitok-retention-'));
});
afterEach(() => rmSync(run, { recursive: true }));

function checkpoint(step: number, note: object = {}): void {
  mkdirSync(checkpointFolder(run, step), { recursive: true });
  const state = JSON.stringify({ trainer: {}, loop: {}, metrics: {}, interrupted: false, ...note });
  writeFileSync(join(checkpointFolder(run, step), 'state.json'), state);
}

async function left(retention: Partial<Retention>): Promise<number[]> {
  await pruneCheckpoints(run, { keep_checkpoints: 1, keep_every: 0, keep_best: null, ...retention });
  return readdirSync(join(run, 'checkpoints'))
    .map((name) => Number(name.slice(5)))
    .sort((a, b) => a - b);
}

it('keeps the last ones, and those of every so many steps', async () => {
  for (let step = 2; step <= 20; step += 2) checkpoint(step);
  expect(await left({ keep_checkpoints: 3, keep_every: 8 })).toEqual([8, 16, 18, 20]);
  expect(await left({ keep_checkpoints: 2 })).toEqual([18, 20]);
});

it('keeps the first of the best by a metric, the least loss or the greatest of anything else', async () => {
  const rows: [number, object][] = [
    [1, { loss: 3, psnr: 10 }],
    [2, { loss: 1, psnr: 12 }],
    [3, { loss: 1, psnr: 30 }],
    [4, { loss: 2, psnr: null }],
    [5, {}],
  ];
  const make = () => {
    for (const [step, metrics] of rows) checkpoint(step, { metrics });
  };
  make();
  expect(await left({ keep_best: 'loss' })).toEqual([2, 5]);
  make();
  expect(await left({ keep_best: 'psnr' })).toEqual([3, 5]);
  make();
  expect(await left({ keep_best: 'accuracy' })).toEqual([5]);
});

it('keeps one of an interruption only while it is the newest', async () => {
  checkpoint(2);
  checkpoint(4);
  checkpoint(5, { interrupted: true });
  expect(await left({ keep_checkpoints: 2 })).toEqual([2, 4, 5]);
  checkpoint(6);
  expect(await left({ keep_checkpoints: 2 })).toEqual([4, 6]);
});

it('is not stopped by one that cannot be read', async () => {
  for (const step of [1, 2, 3]) checkpoint(step);
  writeFileSync(join(checkpointFolder(run, 2), 'state.json'), '{');
  expect(await left({ keep_checkpoints: 2, keep_best: 'loss' })).toEqual([2, 3]);
});
