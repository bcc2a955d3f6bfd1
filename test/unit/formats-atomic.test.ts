import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { OutputError } from '../../src/errors.js';
import { writeAtomic, writeFileAtomic } from '../../src/formats/atomic.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'atomic-'));
});
afterEach(() => rm(folder, { recursive: true }));

it('replaces a file at the end, not before', async () => {
  const path = join(folder, 'a.txt');
  await writeFile(path, 'old');
  await writeAtomic(path, async (file) => {
    await file.write(Buffer.from('new '));
    await file.write(Buffer.from('text'));
    await file.write(Buffer.from('N'), 0);
    expect(await readFile(path, 'utf8')).toBe('old');
  });
  expect(await readFile(path, 'utf8')).toBe('New text');
  expect(await readdir(folder)).toEqual(['a.txt']);
});

it('keeps the old file, and its own error, when the writer fails', async () => {
  const path = join(folder, 'a.txt');
  await writeFile(path, 'old');
  const failure = new Error('a defect');
  const written = writeAtomic(path, async (file) => {
    await file.write(Buffer.from('half'));
    throw failure;
  });
  await expect(written).rejects.toBe(failure);
  expect(await readFile(path, 'utf8')).toBe('old');
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
