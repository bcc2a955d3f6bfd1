import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDataset } from '../../src/data/dataset.js';
import { type ImageSet, subset } from '../../src/data/image-set.js';
import { encodePng } from '../../src/data/images/png.js';
import { TrainingLoader } from '../../src/data/loader.js';
import { sequentialBatches } from '../../src/data/sequential.js';
import { DataError } from '../../src/errors.js';
import { type TarEntry, tarOf } from '../support/tar.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shards-'));
});
afterAll(() => rm(folder, { recursive: true }));

const at = (...names: string[]) => join(folder, ...names);
const write = (name: string, ...entries: TarEntry[]) => writeFile(at(name), tarOf(...entries));

/** Path, class and first bytes of each image. */
const contents = (set: ImageSet) =>
  Promise.all(
    Array.from(set.classes, async (c, i) => [
      set.path(i),
      c,
      Buffer.from(await set.read(i)).toString('latin1', 0, 9),
    ]),
  );

describe('a tar of class folders', () => {
  const PATHS = ['b/2.png', 'b/10.png', 'b-c/1.png', 'b/deep/1.png', 'Z/1.png', 'é/x.y.png', 'é/x.z.png'];
  beforeAll(async () => {
    for (const [i, path] of PATHS.entries()) {
      await mkdir(dirname(at('set', path)), { recursive: true });
      const png = await encodePng({ width: 9, height: 8, data: new Uint8Array(9 * 8 * 3).fill(20 * i) });
      await writeFile(at('set', path), png);
    }
    await mkdir(at('set', 'a-without-images'));
    await mkdir(at('set', '.hidden'));
    await writeFile(at('set', '.hidden', '1.png'), '');
    await writeFile(at('set', 'b', 'notes.txt'), '');
    for (const name of ['__MACOSX/b', 'b/@eaDir']) {
      await mkdir(at('set', name), { recursive: true });
      for (const file of ['1.png', '2.png']) await writeFile(at('set', name, file), '');
    }
    await writeFile(at('set', 'b', '._2.png'), '');
    await writeFile(at('set', 'b', '1.heic'), '');
    await writeFile(at('set', 'b', 'old'), 'GIF89a');
    // Unsorted, in the order in which tar finds the files.
    execFileSync('tar', ['-C', at('set'), '-cf', at('set.tar'), '--sort=none', '.']);
    execFileSync('tar', ['-C', folder, '-cf', at('outer.tar'), 'set']);
  });

  it('equals the folder that it unpacks to, byte for byte and in the same order', async () => {
    const unpacked = await openDataset({ folder: at('set') });
    expect(unpacked.size).toBe(PATHS.length);
    expect(unpacked.leftOut.text).toBe(
      '2 system folders, 1 system file, 1 hidden folder, 2 unsupported images, 1 file that is not an image',
    );
    expect(unpacked.leftOut.warning).toMatch(/1 \.heic, 1 without extension \(GIF by content\)/);
    for (const name of ['set.tar', 'outer.tar/set']) {
      const set = await openDataset({ folder: at(name) });
      expect(set.classNames).toEqual(unpacked.classNames);
      expect(set.emptyClasses).toEqual(['a-without-images']);
      expect(set.leftOut.text).toBe(unpacked.leftOut.text);
      expect(set.leftOut.warning).toBe(unpacked.leftOut.warning);
      expect(await contents(set)).toEqual(await contents(unpacked));
    }
  });

  it('trains to the same result', async () => {
    const [a, b] = await Promise.all(
      [at('set'), at('set.tar')].map(async (folder) => {
        const dataset = await openDataset({ folder });
        const loader = new TrainingLoader({ dataset, imageSize: 8, batchSize: 5, seed: 1 });
        const batches = [await loader.next(), await loader.next(), await loader.next()];
        await loader.close();
        return batches;
      }),
    );
    expect(b).toEqual(a);
  });

  it('accepts a list', async () => {
    await writeFile(at('list.txt'), 'b/10.png\né/x.y.png\n');
    const set = await openDataset({ folder: at('set.tar'), list: at('list.txt') });
    expect((await contents(set)).map(([path, c]) => [path, c])).toEqual([
      ['b/10.png', 2],
      ['é/x.y.png', 4],
    ]);
    await writeFile(at('absent.txt'), 'b/10.png\nb/11.png\n');
    await expect(openDataset({ folder: at('set.tar'), list: at('absent.txt') })).rejects.toThrow(
      /absent\.txt names 1 files that are not in .*set\.tar \(b\/11\.png\)/,
    );
  });

  it('names an unreadable image by tar file and member', async () => {
    const good = await encodePng({ width: 9, height: 8, data: new Uint8Array(9 * 8 * 3) });
    const entries = Array.from({ length: 120 }, (_, i) => ({
      path: `${i}.png`,
      content: i === 7 ? 'no image' : good,
    }));
    await write('broken.tar', ...entries);
    const unreadable: string[] = [];
    const dataset = await openDataset({ folder: at('broken.tar') });
    let images = 0;
    const options = { dataset, imageSize: 8, batchSize: 50, crops: 'center' as const };
    for await (const { classes } of sequentialBatches({
      ...options,
      onUnreadable: (path, { message }) => unreadable.push(path, message),
    }))
      images += classes.length;
    expect(images).toBe(119);
    expect(unreadable).toEqual([at('broken.tar/7.png'), expect.stringMatching(/broken\.tar\/7\.png/)]);
  });
});

describe("webdataset's shards", () => {
  const sample = (key: string, c: number): TarEntry[] => [
    { path: `${key}.cls`, content: `${c}` },
    { path: `${key}.jpg`, content: `image ${key}` },
    { path: `${key}.json`, content: '{}' },
  ];
  beforeAll(async () => {
    await write('train-000.tar', ...sample('n7', 3), ...sample('n1', 0));
    await write('train-001.tar', ...sample('dir/n1', 12).reverse(), ...sample('n1.5', 2));
    await write('train-010.tar', ...sample('z', 1));
  });

  it('have the classes of .cls and the order of the files', async () => {
    const set = await openDataset({ folder: at('train-{000..001}.tar') });
    expect(set.classNames).toEqual(Array.from({ length: 13 }, (_, i) => String(i)));
    expect(await contents(set)).toEqual([
      ['n7.jpg', 3, 'image n7'],
      ['n1.jpg', 0, 'image n1'],
      ['dir/n1.jpg', 12, 'image dir'],
      ['n1.5.jpg', 2, 'image n1.'],
    ]);
    expect(set.location(2)).toBe(at('train-001.tar/dir/n1.jpg'));
    const some = subset(set, [3, 0]);
    expect([some.size, ...(await contents(some))]).toEqual([
      2,
      ['n1.5.jpg', 2, 'image n1.'],
      ['n7.jpg', 3, 'image n7'],
    ]);
  });

  it('can be given by wildcards', async () => {
    const paths = async (pattern: string) =>
      (await contents(await openDataset({ folder: at(pattern) }))).length;
    expect(await paths('train-*.tar')).toBe(5);
    expect(await paths('{train-00?,train-010}.tar')).toBe(5);
    expect(await paths('train-0[1]*.tar/')).toBe(1);
  });

  it.each<[string, TarEntry[], RegExp]>([
    [
      'a .cls without a number',
      [{ path: 'a.cls', content: 'cat' }, { path: 'a.jpg' }],
      /a\.cls holds no class number/,
    ],
    ['a .cls of 10^9', [{ path: 'a.cls', content: '1000000000' }, { path: 'a.jpg' }], /from 0 to 99999/],
    [
      'a .cls of 9 GB',
      [{ path: 'a.cls', content: '1'.repeat(99) }, { path: 'a.jpg' }],
      /holds no class number/,
    ],
    ['an image without .cls', [...sample('a', 1), { path: 'b.jpg' }], /b\.jpg has no \.cls next to it/],
    [
      'a .cls elsewhere',
      [{ path: 'a.jpg' }, { path: 'b.jpg' }, { path: 'a.cls', content: '1' }],
      /a\.jpg has no/,
    ],
    ['two images for one .cls', [{ path: 'a.mask.png' }, ...sample('a', 1)], /a\.mask\.png and a\.jpg share/],
    ['no images', [{ path: 'a.cls', content: '1' }], /holds no images/],
    ['nothing', [{ path: 'readme' }], /holds no images/],
    ['a link', [{ path: 'a.jpg', type: '1' }], /a\.jpg is a link; pack the files themselves/],
    ['images beside folders', [{ path: 'a.jpg' }, { path: 'b/c.jpg' }], /outside class folders \(a\.jpg\)/],
  ])('are refused with %s', async (_, entries, message) => {
    await write('bad.tar', ...entries);
    const error = await openDataset({ folder: at('bad.tar') }).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(at('bad.tar'));
  });

  it.each([
    ['train-{000..002}.tar', /train-002\.tar: no such file/],
    ['test-*.tar', /no tar file matches .*test-\*\.tar/],
    ['train-000.tar.gz', /is compressed/],
    ['none.tar', /none\.tar: no such file/],
  ])('%s is refused', async (name, message) => {
    await expect(openDataset({ folder: at(name) })).rejects.toThrow(message);
  });

  it('that were truncated after opening are named when they are read', async () => {
    await write('short.tar', ...sample('a', 0));
    const set = await openDataset({ folder: at('short.tar') });
    await truncate(at('short.tar'), 600);
    await expect(set.read(0)).rejects.toThrow(/short\.tar\/a\.jpg: the tar file ends before/);
  });
});
