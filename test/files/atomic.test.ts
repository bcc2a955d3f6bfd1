import { lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { OutputError } from '../../src/errors.js';
import { removeTemporaries, writeAtomic, writeFileAtomic, writeOwnFile } from '../../src/files/atomic.js';
import { MARK } from '../../src/files/mark.js';

const OLD = `old, ${MARK}`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'atomic-'));
});
afterEach(() => rm(folder, { recursive: true }));

it('replaces a file at the end, not before', async () => {
  const path = join(folder, 'a.txt');
  await writeFile(path, OLD);
  await writeAtomic(path, async (file) => {
    await file.write(Buffer.from('new '));
    await file.write(Buffer.from('text'));
    await file.write(Buffer.from('N'), 0);
    expect(await readFile(path, 'utf8')).toBe(OLD);
  });
  expect(await readFile(path, 'utf8')).toBe('New text');
  expect(await readdir(folder)).toEqual(['a.txt']);
});

it('keeps the old file, and its own error, when the writer fails', async () => {
  const path = join(folder, 'a.txt');
  await writeFile(path, OLD);
  const failure = new Error('a defect');
  const written = writeAtomic(path, async (file) => {
    await file.write(Buffer.from('half'));
    throw failure;
  });
  await expect(written).rejects.toBe(failure);
  expect(await readFile(path, 'utf8')).toBe(OLD);
  expect(await readdir(folder)).toEqual(['a.txt']);
});

it.each([
  ['ENOSPC', /the disk is full/],
  ['EDQUOT', /quota/],
])('says what to do about %s, and removes what was written', async (code, remedy) => {
  const path = join(folder, 'a.txt');
  const written = writeAtomic(path, async (file) => {
    await file.write(Buffer.from('half'));
    throw Object.assign(new Error('write'), { code });
  });
  const error = await written.catch((e) => e);
  expect(error).toBeInstanceOf(OutputError);
  expect(error.message).toMatch(remedy);
  expect(error.message).toContain(path);
  expect(await readdir(folder)).toEqual([]);
});

it.each([
  ['a missing folder', 'none/a.txt', /create the folder first/],
  ['a file for a folder', 'file/a.txt', /not a folder/],
  ['a folder of that name', 'taken', /a folder of that name/],
])('names %s', async (_, name, remedy) => {
  await writeFile(join(folder, 'file'), '');
  await mkdir(join(folder, 'taken'));
  const error = await writeFileAtomic(join(folder, name), 'text').catch((e) => e);
  expect(error).toBeInstanceOf(OutputError);
  expect(error.message).toMatch(remedy);
  expect((await readdir(folder)).sort()).toEqual(['file', 'taken']);
});

const FOREIGN = /a\.txt already exists and was not written by alitok; choose another path, or remove it/;

it('a file without the mark is kept, and the writer is not called', async () => {
  const path = join(folder, 'a.txt');
  await writeFile(path, 'mine');
  let asked = false;
  const written = writeAtomic(path, async () => {
    asked = true;
  });
  await expect(written).rejects.toThrow(FOREIGN);
  expect([asked, await readFile(path, 'utf8'), await readdir(folder)]).toEqual([false, 'mine', ['a.txt']]);
});

it('a file that appears during the write is kept', async () => {
  const path = join(folder, 'a.txt');
  const written = writeAtomic(path, (file) =>
    file.write(Buffer.from(OLD)).then(() => writeFile(path, 'mine')),
  );
  await expect(written).rejects.toThrow(FOREIGN);
  expect([await readFile(path, 'utf8'), await readdir(folder)]).toEqual(['mine', ['a.txt']]);
});

it('the mark is found at the beginning and at the end of a large file, and not in its middle', async () => {
  const [path, filler] = [join(folder, 'a.txt'), 'x'.repeat(2 ** 17)];
  for (const content of [MARK + filler, filler + MARK]) {
    await writeFile(path, content);
    await writeFileAtomic(path, 'new');
  }
  await writeFile(path, filler + MARK + filler);
  await expect(writeFileAtomic(path, 'new')).rejects.toThrow(FOREIGN);
});

it('a device is not replaced', async () => {
  await expect(writeFileAtomic('/dev/null', 'new')).rejects.toThrow(/\/dev\/null already exists/);
  expect((await lstat('/dev/null')).isCharacterDevice()).toBe(true);
});

it('the target of a symbolic link is replaced', async () => {
  await writeFile(join(folder, 'a.txt'), OLD);
  await symlink('a.txt', join(folder, 'link'));
  await writeFileAtomic(join(folder, 'link'), 'new');
  expect(await readFile(join(folder, 'a.txt'), 'utf8')).toBe('new');
  expect((await lstat(join(folder, 'link'))).isSymbolicLink()).toBe(true);
  await rm(join(folder, 'a.txt'));
  await expect(writeFileAtomic(join(folder, 'link'), 'new')).rejects.toThrow(/link: it is a broken link/);
  expect(await readdir(folder)).toEqual(['link']);
});

it("in the program's own folders a file needs no mark", async () => {
  await writeFile(join(folder, 'a.txt'), 'old');
  await writeOwnFile(join(folder, 'a.txt'), 'new');
  expect(await readFile(join(folder, 'a.txt'), 'utf8')).toBe('new');
});

it('only the temporary files of this program are removed', async () => {
  const mine = ['.a.txt.tmp', '.a.txt.12.3.tmp', '.alitok-12-3.tmp', 'a.txt.alitok-12-3.tmp'];
  for (const name of [...mine, '.a.txt.alitok-12-3.tmp', '.b.alitok-12-4.tmp'])
    await writeFile(join(folder, name), '');
  await removeTemporaries(folder, ['a.txt']);
  expect((await readdir(folder)).sort()).toEqual([...mine, '.b.alitok-12-4.tmp'].sort());
  await removeTemporaries(folder);
  expect((await readdir(folder)).sort()).toEqual(mine.sort());
});
