import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDataset } from '../../src/data/dataset.js';
import { byCodePoint, type ImageSet } from '../../src/data/image-set.js';
import { DataError } from '../../src/errors.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dataset-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function make(...paths: string[]): Promise<void> {
  for (const path of paths) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), '');
  }
}

async function makeList(text: string): Promise<string> {
  const list = join(folder, '.list.txt');
  await writeFile(list, text);
  return list;
}

const pairs = (set: ImageSet) => Array.from(set.classes, (c, i) => [set.path(i), c]);

describe('class folders', () => {
  it('have the rank of their name in code point order, with what lies deeper', async () => {
    await make(
      'b/2.JPG',
      'b/10.jpeg',
      'b/deep/er/1.webp',
      'Z/1.png',
      'é/1.tiff',
      '\u{1f600}/1.avif',
      '\uff5e/1.gif',
    );
    const set = await openDataset({ folder });
    expect(set.root).toBe(folder);
    expect(set.classNames).toEqual(['Z', 'b', 'é', '\uff5e', '\u{1f600}']);
    expect(pairs(set)).toEqual([
      ['Z/1.png', 0],
      ['b/10.jpeg', 1],
      ['b/2.JPG', 1],
      ['b/deep/er/1.webp', 1],
      ['é/1.tiff', 2],
      ['\uff5e/1.gif', 3],
      ['\u{1f600}/1.avif', 4],
    ]);
  });

  it('without images keep their rank; hidden names and other files are passed over', async () => {
    await make('a/readme.txt', 'b/1.png', 'b/.1.png', '.cache/1.png', 'b/Thumbs.db', 'notes.txt');
    const set = await openDataset({ folder });
    expect(set.classNames).toEqual(['a', 'b']);
    expect(pairs(set)).toEqual([['b/1.png', 1]]);
  });

  it('may be links', async () => {
    await make('real/1.png');
    await symlink(join(folder, 'real'), join(folder, 'alias'));
    expect(pairs(await openDataset({ folder }))).toEqual([
      ['alias/1.png', 0],
      ['real/1.png', 1],
    ]);
  });
});

it('a folder of images is one class without a name', async () => {
  await make('2.png', '1.png');
  const set = await openDataset({ folder });
  expect(set.classNames).toEqual(['']);
  expect(pairs(set)).toEqual([
    ['1.png', 0],
    ['2.png', 0],
  ]);
});

describe('list file', () => {
  it('gives the order; classes have the rank of their folder, listed or not', async () => {
    await make('a/1.png', 'b/1.png', 'c/1.png', 'c/x/2.png');
    const list = await makeList('c/1.png\r\n\nb/1.png\n./c/x/2.png\n');
    const set = await openDataset({ folder, list });
    expect(set.classNames).toEqual(['a', 'b', 'c']);
    expect(pairs(set)).toEqual([
      ['c/1.png', 2],
      ['b/1.png', 1],
      ['c/x/2.png', 2],
    ]);
  });

  it('of a flat folder', async () => {
    await make('1.png', '2.png');
    const set = await openDataset({ folder, list: await makeList('2.png\n') });
    expect([set.classNames, pairs(set)]).toEqual([[''], [['2.png', 0]]]);
  });

  it.each([
    ['a/1.png\na/7.png\nz/1.png', /names 2 files that are not in .* \(a\/7.png, z\/1.png\)/],
    ['/etc/passwd', /must be relative/],
    ['a/../../x.png', /must be relative/],
    ['\n', /names no images/],
  ])('%j is refused', async (text, message) => {
    await make('a/1.png');
    const error = await openDataset({ folder, list: await makeList(text) }).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(message);
  });
});

describe('errors', () => {
  it.each<[string, () => ReturnType<typeof openDataset>, RegExp]>([
    ['missing', () => openDataset({ folder: join(folder, 'none') }), /none: no such folder/],
    ['a file', () => openDataset({ folder: join(folder, 'a.txt') }), /it is a file/],
    ['empty', () => openDataset({ folder: join(folder, 'empty') }), /empty holds no images/],
    ['missing list', () => openDataset({ folder, list: join(folder, 'none.txt') }), /none.txt: ENOENT/],
    ['mixed', () => openDataset({ folder: join(folder, 'mixed') }), /outside class folders \(1.png\)/],
  ])('%s', async (_, open, message) => {
    await make('a.txt', 'empty/b/a.txt', 'mixed/1.png', 'mixed/a/1.png');
    const error = await open().catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(message);
  });
});

it('byCodePoint sorts as UTF-8 bytes do', () => {
  const texts = [
    '',
    'a',
    'ab',
    'b',
    '\uff5e',
    '\u{1f600}',
    '\u{1f601}',
    '\u{1f600}a',
    'a\u{1f600}',
    'a\uff5e',
  ];
  const bytes = texts.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  expect(texts.toReversed().sort(byCodePoint)).toEqual(bytes);
});
