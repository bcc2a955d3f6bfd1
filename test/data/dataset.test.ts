import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { foundText, openDataset } from '../../src/data/dataset.js';
import { byCodePoint, type ImageSet } from '../../src/data/image-set.js';
import { encodePng } from '../../src/data/images/png.js';
import { LeftOut } from '../../src/data/left-out.js';
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
  it('are numbered by name in code point order, and include nested folders', async () => {
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

  it('without images keep their number; hidden names and other files are skipped', async () => {
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

describe('links', () => {
  it('to a parent folder are left out, whatever their path', async () => {
    await make('set/a/1.png', 'set/a/deep/2.png', 'set/b/3.png', 'beside/4.png');
    await symlink('..', join(folder, 'set/a/up')); // the root
    await symlink('../..', join(folder, 'set/a/deep/up')); // the class
    await symlink(folder, join(folder, 'set/b/far-up')); // the parent of the root, with other images in it
    await symlink(join(folder, 'set'), join(folder, 'set/all')); // would be a class
    const set = await openDataset({ folder: join(folder, 'set') });
    expect(pairs(set)).toEqual([
      ['a/1.png', 0],
      ['a/deep/2.png', 0],
      ['b/3.png', 1],
    ]);
    expect(set.classNames).toEqual(['a', 'b']);
    expect(set.leftOut.text).toBe('4 links to parent folders');
  });

  it('that form a cycle end, and two links to one folder outside are two views of it', async () => {
    await make('set/a/1.png', 'out/2.png', 'out/deep/3.png');
    await symlink(join(folder, 'out'), join(folder, 'set/b'));
    await symlink(join(folder, 'out'), join(folder, 'set/c'));
    await symlink(join(folder, 'set'), join(folder, 'out/back'));
    await symlink(join(folder, 'out'), join(folder, 'out/deep/up'));
    await symlink(join(folder, 'out/2.png'), join(folder, 'set/a/4.png'));
    const set = await openDataset({ folder: join(folder, 'set') });
    expect(Array.from(set.classes, (_, i) => set.path(i))).toEqual([
      'a/1.png',
      'a/4.png',
      'b/2.png',
      'b/deep/3.png',
      'c/2.png',
      'c/deep/3.png',
    ]);
    expect(set.leftOut.text).toBe('4 links to parent folders');
  });
});

describe('the count of left-out files', () => {
  it('covers system folders and files at any depth, hidden ones, and files that are not images', async () => {
    await make(
      ...['cat/1.png', 'dog/1.png'],
      ...[
        '__MACOSX/cat/1.png',
        '@eaDir/1.jpg',
        'lost+found/.keep',
        'cat/@eaDir/1.png/x.jpg',
        '$RECYCLE.BIN/1.png',
      ],
      ...['#recycle/1.png', 'System Volume Information/1.png', 'dog/.ipynb_checkpoints/1.png'],
      ...['cat/._1.png', 'cat/Thumbs.db', 'dog/desktop.ini', '.DS_Store'],
      ...['.cache/1.png', 'cat/.1.png', 'dog/notes.txt', 'dog/1', 'readme.md'],
    );
    execFileSync('mkfifo', [join(folder, 'cat/pipe.png'), join(folder, 'cat/pipe')]); // reading one never ends
    const set = await openDataset({ folder });
    expect(set.classNames).toEqual(['cat', 'dog']);
    expect(pairs(set)).toEqual([
      ['cat/1.png', 0],
      ['dog/1.png', 1],
    ]);
    expect(set.leftOut.text).toBe(
      '8 system folders, 4 system files, 1 hidden folder, 1 hidden file, 5 files that are not images',
    );
    expect(set.leftOut.warning).toBeUndefined();
    expect(foundText(set)).toBe(`${folder}: 2 images in 2 classes (left out: ${set.leftOut.text})`);
  });

  it('lists unsupported images by extension, found by extension or by first bytes', async () => {
    await make('a/1.png', 'a/1.heic', 'a/2.HEIC', 'a/1.jxl', 'a/empty');
    const png = await encodePng({ width: 1, height: 1, data: new Uint8Array(3) });
    for (const name of ['b.png.1', 'c.1']) await writeFile(join(folder, 'a', name), png);
    await writeFile(join(folder, 'a/drawing'), '<?xml version="1.0"?>\n<!-- x -->\n<svg width="1"/>');
    await writeFile(join(folder, 'a/notes.rst'), 'BMW, P6 and GIF are only words here');
    const { leftOut, size } = await openDataset({ folder });
    expect(size).toBe(1);
    expect(leftOut.text).toBe('6 unsupported images, 2 files that are not images');
    expect(leftOut.warning).toBe(
      'left out 6 unsupported images: 2 .heic, 2 .1 (PNG by content), 1 .jxl, 1 without extension; convert them, for instance to .png, or rename those whose content is supported',
    );
  });

  it('checks the content of at most a thousand files', async () => {
    const leftOut = new LeftOut();
    let looks = 0;
    const look = () => {
      looks++;
      return Buffer.from('II*\0');
    };
    for (let i = 0; i < 1500; i++) await leftOut.addFile(`${i}.unknown`, look);
    for (let i = 0; i < 10; i++) await leftOut.addFile(`${i}.json`, look);
    for (let i = 0; i < 10; i++) await leftOut.addFile(`${i}.psd`, look);
    expect(looks).toBe(1000);
    expect(leftOut.text).toBe(
      '1,010 unsupported images, 10 files that are not images, 500 files that were not checked',
    );
  });

  it('is empty if a list names the images', async () => {
    await make('a/1.png', 'a/2.heic', 'b/.x.png', '__MACOSX/1.png');
    const set = await openDataset({ folder, list: await makeList('a/1.png\n') });
    expect([set.classNames, set.leftOut.text, set.emptyClasses]).toEqual([['a', 'b'], '', []]);
  });
});

it('every extension in the guide is read, in lower and upper case', async () => {
  const guide = await readFile(join(import.meta.dirname, '../../docs/your-images.md'), 'utf8');
  const [, list] = /are read: `([^`]+)`/.exec(guide)!;
  const endings = list.split(/\s+/);
  expect(endings.length).toBeGreaterThan(15);
  await make(...endings.flatMap((ending) => [`a/x${ending}`, `a/y${ending.toUpperCase()}`]));
  const { size, leftOut } = await openDataset({ folder });
  expect([size, leftOut.text]).toEqual([2 * endings.length, '']);
});

describe('class folders without an image', () => {
  beforeEach(() => make('ant/notes.txt', 'bee/1.heic', 'cat/1.png', 'cow/@eaDir/1.png', 'dog/.1.png'));

  it('are refused by name for training on classes, with a count of their left-out files', async () => {
    const error = await openDataset({ folder, refuseEmptyClasses: true }).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toContain('has 4 class folders without an image (ant, bee, cow, …)');
    expect(error.message).toContain(
      'left out: 1 system folder, 1 hidden file, 1 unsupported image, 1 file that is not an image',
    );
    expect(error.message).toContain('allowEmptyClasses');
  });

  it('keep their number otherwise, and are named', async () => {
    const set = await openDataset({ folder });
    expect(set.classNames).toEqual(['ant', 'bee', 'cat', 'cow', 'dog']);
    expect(pairs(set)).toEqual([['cat/1.png', 2]]);
    expect(foundText(set)).toContain(
      '1 image in 5 classes, 4 without an image: ant, bee, cow, … (left out: ',
    );
  });

  it('are not an error without classes, or if a list names the images', async () => {
    const refuseEmptyClasses = true;
    const list = await makeList('cat/1.png\n');
    expect((await openDataset({ folder, list, refuseEmptyClasses })).size).toBe(1);
    await make('flat/1.png', 'flat/empty/notes.txt');
    expect((await openDataset({ folder: join(folder, 'flat'), refuseEmptyClasses })).classNames).toEqual([
      '',
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
  it('sets the order; classes are numbered by their folders, listed or not', async () => {
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
    ['a/.1.png', /neither hidden nor in a system folder/],
    ['__MACOSX/1.png', /neither hidden nor in a system folder/],
    ['up/a/1.png', /up\/a\/1\.png is not in a class folder/],
    ['\n', /names no images/],
  ])('%j is refused', async (text, message) => {
    await make('a/1.png', '__MACOSX/1.png');
    await symlink('.', join(folder, 'up'));
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
    ['unsupported images', () => openDataset({ folder: join(folder, 'heic') }), /2 \.heic; convert them/],
    ['missing list', () => openDataset({ folder, list: join(folder, 'none.txt') }), /none.txt: ENOENT/],
    ['mixed', () => openDataset({ folder: join(folder, 'mixed') }), /outside class folders \(1.png\)/],
  ])('%s', async (_, open, message) => {
    await make('a.txt', 'empty/b/a.txt', 'mixed/1.png', 'mixed/a/1.png', 'heic/b/1.heic', 'heic/b/2.heic');
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
