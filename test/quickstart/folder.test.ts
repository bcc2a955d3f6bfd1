import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { OutputError } from '../../src/errors.js';
import { QuickstartFolder } from '../../src/quickstart/folder.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'alitok-quickstart-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Writes a file below the folder. */
function put(path: string): void {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), path);
}

const all = () => readdirSync(folder, { recursive: true }).map(String).sort();

/** A quickstart that was interrupted in its second step, or a finished one. */
async function earlier(fails = false): Promise<void> {
  const own = await QuickstartFolder.open(folder, ['pictures/cat/0.png', 'pictures/cat/1.png']);
  put('pictures/cat/0.png');
  const step = own.step(['run'], async () => {
    put('run/checkpoints/1/model');
    if (fails) throw new Error('stopped');
  });
  await step.catch(() => {});
  if (!fails) await own.finish({ fid: 1 });
}

it.each([false, true])(
  'replaces the files of an earlier quickstart, whether it was interrupted: %s',
  async (fails) => {
    await earlier(fails);
    put('.lock-00000000-0000-4000-8000-000000000001.json');
    put('run/.model.alitok-1-2.tmp'); // from a killed process
    mkdirSync(join(folder, 'mine'));
    await QuickstartFolder.open(folder, []);
    expect(all()).toEqual(['.lock-00000000-0000-4000-8000-000000000001.json', 'mine', 'quickstart.json']);
  },
);

it.each([
  'thesis.txt',
  'pictures/holiday.png',
  'run/checkpoints/1/notes.txt',
  'pictures/dog/0.png',
  'curves.png',
])('%s, which it did not write, refuses the folder, and everything stays', async (mine) => {
  await earlier();
  put(mine);
  const before = all();
  const again = QuickstartFolder.open(folder, [mine]);
  await expect(again).rejects.toThrow(OutputError);
  await expect(again).rejects.toThrow(`${folder} holds ${mine}, which no earlier quickstart wrote`);
  expect(all()).toEqual(before);
});

it('links are not followed', async () => {
  await earlier();
  const elsewhere = mkdtempSync(join(tmpdir(), 'alitok-elsewhere-'));
  writeFileSync(join(elsewhere, '0.png'), 'mine');
  rmSync(join(folder, 'pictures/cat'), { recursive: true });
  symlinkSync(elsewhere, join(folder, 'pictures/cat'));
  await expect(QuickstartFolder.open(folder, [])).rejects.toThrow(/holds pictures\/cat, which/);
  expect(existsSync(join(elsewhere, '0.png'))).toBe(true);
  rmSync(elsewhere, { recursive: true });
});

it('a link in the place of a file is not removed', async () => {
  await earlier();
  rmSync(join(folder, 'pictures/cat/0.png'));
  symlinkSync('1.png', join(folder, 'pictures/cat/0.png'));
  await expect(QuickstartFolder.open(folder, [])).rejects.toThrow(/holds pictures\/cat\/0\.png, which/);
  expect(readdirSync(join(folder, 'pictures/cat'))).toEqual(['0.png']);
});

it('a folder that only looks like one is refused', async () => {
  put('pictures/holiday.txt');
  await expect(QuickstartFolder.open(folder, [])).rejects.toThrow(/holds pictures\/holiday.txt, which/);
  put('quickstart.json');
  await expect(QuickstartFolder.open(folder, [])).rejects.toThrow(
    /quickstart\.json is not from a quickstart/,
  );
  expect(all()).toEqual(['pictures', 'pictures/holiday.txt', 'quickstart.json']);
});
