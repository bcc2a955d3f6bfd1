import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkpointFolder, removePartial } from '../../src/run/layout.js';
import { pruneCheckpoints, type Retention } from '../../src/run/retention.js';

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

it('keeps the last ones, and those at a fixed interval', async () => {
  for (let step = 2; step <= 20; step += 2) checkpoint(step);
  expect(await left({ keep_checkpoints: 3, keep_every: 8 })).toEqual([8, 16, 18, 20]);
  expect(await left({ keep_checkpoints: 2 })).toEqual([18, 20]);
});

it('keeps the first of the best by a metric: the smallest loss, or the largest of any other metric', async () => {
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

it('keeps one from an interruption only while it is the newest', async () => {
  checkpoint(2);
  checkpoint(4);
  checkpoint(5, { interrupted: true });
  expect(await left({ keep_checkpoints: 2 })).toEqual([2, 4, 5]);
  checkpoint(6);
  expect(await left({ keep_checkpoints: 2 })).toEqual([4, 6]);
});

it("keeps files that are not a checkpoint's, also in its folder, and does not count them", async () => {
  for (const step of [1, 2, 3]) checkpoint(step);
  writeFileSync(join(checkpointFolder(run, 1), 'notes.txt'), 'mine');
  mkdirSync(checkpointFolder(run, 9));
  writeFileSync(join(checkpointFolder(run, 9), 'thesis.txt'), 'mine');
  expect(await left({})).toEqual([1, 3, 9]);
  expect(readdirSync(checkpointFolder(run, 1))).toEqual(['notes.txt']);
  expect(readdirSync(checkpointFolder(run, 9))).toEqual(['thesis.txt']);
  checkpoint(4);
  expect(await left({})).toEqual([1, 4, 9]);
});

it('removes a checkpoint that the user moved and linked, but keeps the link and other files', async () => {
  for (const step of [1, 2]) checkpoint(step);
  renameSync(checkpointFolder(run, 1), join(run, 'moved'));
  writeFileSync(join(run, 'moved', 'notes.txt'), 'mine');
  symlinkSync(join(run, 'moved'), checkpointFolder(run, 1));
  expect(await left({})).toEqual([1, 2]);
  expect(readdirSync(join(run, 'moved'))).toEqual(['notes.txt']);
  rmSync(join(run, 'moved', 'notes.txt'));
  writeFileSync(join(run, 'moved', 'state.json'), '{}');
  expect(await left({})).toEqual([1, 2]);
});

it('removes only the files of the program from unfinished checkpoints', async () => {
  const partial = `${checkpointFolder(run, 2)}.partial`;
  const mine = [join(partial, 'notes.txt'), join(run, 'checkpoints/mine.partial/a.txt')];
  for (const path of [
    ...mine,
    join(partial, 'model.safetensors'),
    join(partial, '.state.json.alitok-1-2.tmp'),
  ]) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
  }
  await removePartial(run);
  expect(readdirSync(partial)).toEqual(['notes.txt']);
  expect(readdirSync(dirname(mine[1]))).toEqual(['a.txt']);
});

it('is not stopped by an unreadable one', async () => {
  for (const step of [1, 2, 3]) checkpoint(step);
  writeFileSync(join(checkpointFolder(run, 2), 'state.json'), '{');
  expect(await left({ keep_checkpoints: 2, keep_best: 'loss' })).toEqual([2, 3]);
});
