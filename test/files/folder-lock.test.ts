import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { OutputError } from '../../src/errors.js';
import { lockFolder } from '../../src/files/folder-lock.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'alitok-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const locks = () => readdirSync(folder).filter((name) => name.startsWith('.lock-'));

/** Writes the lock of another process: this one's with changes. */
async function foreign(changes: object): Promise<string> {
  const own = await lockFolder(folder);
  const holder = JSON.parse(readFileSync(join(folder, locks()[0]), 'utf8'));
  await own.release();
  const path = join(folder, '.lock-00000000-0000-4000-8000-000000000001.json');
  writeFileSync(path, JSON.stringify({ ...holder, ...changes }));
  return path;
}

it('only one process holds a folder at a time, and leaves nothing behind', async () => {
  const lock = await lockFolder(join(folder, 'a', 'b'));
  await expect(lockFolder(join(folder, 'a', 'b'))).rejects.toThrow(OutputError);
  await expect(lockFolder(join(folder, 'a', 'b'))).rejects.toThrow(`in use by process ${process.pid} on `);
  await lock.check();
  await lock.release();
  expect(readdirSync(folder)).toEqual([]);
});

it('files in a folder stay, and so does the folder', async () => {
  const lock = await lockFolder(join(folder, 'a'));
  writeFileSync(join(folder, 'a', 'result'), '');
  await lock.release();
  expect(readdirSync(join(folder, 'a'))).toEqual(['result']);
});

it.skipIf(process.platform !== 'linux')(
  'the lock of a dead process is invalid, even if its ID is used again',
  async () => {
    for (const changes of [{ pid: 2 ** 22 + 1 }, { started: '1' }]) {
      await foreign(changes);
      await (await lockFolder(folder)).release();
      expect(locks()).toEqual([]);
    }
  },
);

it('a partially written lock is invalid', async () => {
  writeFileSync(join(folder, '.lock-00000000-0000-4000-8000-000000000002.json'), '');
  await (await lockFolder(folder)).release();
  expect(locks()).toEqual([]);
});

it('a process on another machine is alive as long as it touches its lock, whatever its clock', async () => {
  const path = await foreign({ place: 'another machine', host: 'far', pid: 7 });
  const messages: string[] = [];
  const options = { watchMs: 400, onWatch: (message: string) => messages.push(message) };
  let beat = 0;
  const heart = setInterval(() => utimesSync(path, beat++, beat), 20);
  await expect(lockFolder(folder, options)).rejects.toThrow(`${folder} is in use by process 7 on far`);
  clearInterval(heart);
  expect(messages[0]).toContain('checking whether that process is still alive');
  const lock = await lockFolder(folder, options);
  expect(locks()).toHaveLength(1);
  await lock.release();
});

it('a holder touches its lock, also while its main thread is busy', async () => {
  const lock = await lockFolder(folder);
  const path = join(folder, locks()[0]);
  // The worker sets whole seconds, unlike the system's own times.
  await vi.waitUntil(() => statSync(path).mtimeMs % 1000 === 0, { timeout: 20_000 });
  const before = statSync(path).mtimeMs;
  const begun = performance.now();
  while (statSync(path).mtimeMs === before && performance.now() - begun < 20_000);
  expect(statSync(path).mtimeMs).toBe(before + 1000);
  await lock.release();
});

it('a holder whose lock was removed must not write', async () => {
  const lock = await lockFolder(folder);
  rmSync(join(folder, locks()[0]));
  await expect(lock.check()).rejects.toThrow('was taken over by another process');
  await lock.release();
});

it('files of the user that only look like locks stay, and lock nothing', async () => {
  for (const name of ['.lock-', '.lock-notes.json', '.lock-notes.txt'])
    writeFileSync(join(folder, name), 'mine');
  await (await lockFolder(folder)).release();
  expect(readdirSync(folder).sort()).toEqual(['.lock-', '.lock-notes.json', '.lock-notes.txt']);
});
