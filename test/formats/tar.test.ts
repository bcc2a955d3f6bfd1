import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataError } from '../../src/errors.js';
import { TarFile, type TarMember } from '../../src/formats/tar.js';
import { fuzz } from '../support/fuzz.js';
import { paxHeader, TAR_END, type TarEntry, tarHeader, tarMember, tarOf } from '../support/tar.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tar-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** All members with their contents. */
function readTar(path: string): [TarMember, string][] {
  const tar = new TarFile(path);
  try {
    return Array.from(tar.members(), (member) => [member, tar.contents(member).toString()]);
  } finally {
    tar.close();
  }
}

async function fileOf(bytes: Uint8Array): Promise<string> {
  const path = join(folder, 'file.tar');
  await writeFile(path, bytes);
  return path;
}

const LONG = `${'deep/'.repeat(30)}${'ü'.repeat(60)}.jpg`; // more than ustar's 100 bytes, or pax's prefix and name

describe('files of GNU tar', () => {
  beforeAll(async () => {
    for (const path of ['a/1.jpg', 'a/empty.jpg', 'b/2.jpg', LONG]) {
      await mkdir(join(folder, 'in', path, '..'), { recursive: true });
      await writeFile(join(folder, 'in', path), path.includes('empty') ? '' : `bytes of ${path}`.repeat(99));
    }
  });

  it.each(['gnu', 'oldgnu', 'pax', 'posix'])('in the format %s', (format) => {
    const path = join(folder, `${format}.tar`);
    execFileSync('tar', [`--format=${format}`, '-C', join(folder, 'in'), '-cf', path, '.']);
    const files = readTar(path).filter(([{ type }]) => type === 'file');
    const found = Object.fromEntries(files.map(([member, text]) => [member.path, text]));
    const expected = ['a/1.jpg', 'b/2.jpg', LONG].map((name) => [name, `bytes of ${name}`.repeat(99)]);
    expect(found).toEqual(Object.fromEntries([...expected, ['a/empty.jpg', '']]));
  });

  it.each(['v7', 'ustar'])('in the format %s, with a name in two parts', (format) => {
    const path = join(folder, `${format}.tar`);
    const names = ['a/1.jpg', 'a/empty.jpg', 'b'];
    execFileSync('tar', [`--format=${format}`, '-C', join(folder, 'in'), '-cf', path, ...names]);
    expect(readTar(path).map(([{ path, type }]) => [path, type])).toEqual([
      ['a/1.jpg', 'file'],
      ['a/empty.jpg', 'file'],
      ['b', 'folder'],
      ['b/2.jpg', 'file'],
    ]);
  });
});

it('reads binary sizes, sizes from attributes, prefixes, old folders and links', async () => {
  const prefixed = tarHeader({ path: 'name.jpg', content: 'x' });
  prefixed.write('some/folder', 345);
  prefixed.fill(' ', 148, 156);
  prefixed.write(
    `${prefixed
      .reduce((a, b) => a + b, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  const bytes = Buffer.concat([
    tarMember({
      path: './binary.jpg',
      content: 'four',
      size: Buffer.from('800000000000000000000004', 'hex'),
    }),
    ...[paxHeader('size', '5'), { path: 'short.jpg', content: 'fives', size: 0 }].map(tarMember),
    tarMember({ path: 'global', type: 'g', content: '20 comment=anything\n' }),
    prefixed,
    Buffer.from('x'.padEnd(512, '\0')),
    tarMember({ path: 'old/' }),
    tarMember({ path: 'old/link.jpg', type: '2' }),
    tarMember({ path: 'pipe', type: '6' }),
    TAR_END,
  ]);
  const read = readTar(await fileOf(bytes));
  expect(read.map(([{ path, type }, text]) => [path, type, text])).toEqual([
    ['binary.jpg', 'file', 'four'],
    ['short.jpg', 'file', 'fives'],
    ['some/folder/name.jpg', 'file', 'x'],
    ['old', 'folder', ''],
    ['old/link.jpg', 'link', ''],
  ]);
});

describe('refuses in one line', () => {
  const good: TarEntry = { path: 'a.jpg', content: 'x'.repeat(2000) };
  const huge = (hex: string) => ({ ...good, size: Buffer.from(hex, 'hex') });
  it.each<[string, Buffer, RegExp]>([
    ['an empty file', Buffer.alloc(0), /without an end mark/],
    ['no tar', Buffer.alloc(2000, 'text'), /does not begin as one/],
    [
      'a member that is cut off',
      tarOf(good).subarray(0, 2000),
      /a\.jpg, 2000 bytes at byte 512, goes beyond/,
    ],
    ['an end that is cut off', tarOf(good).subarray(0, -1024), /without an end mark: it is cut off/],
    ['a header that is cut off', tarOf(good, good).subarray(0, 2560 + 100), /without an end mark/],
    ['a changed header', tarOf(good, good).fill('b', 2560, 2561), /no valid header at byte 2560/],
    ['8 GB', tarOf({ ...good, size: 2 ** 33 - 1 }), /8589934591 bytes at byte 512, goes beyond/],
    ['a negative size', tarOf(huge('ffffffffffffffffffffff00')), /does not begin as one/],
    ['a size of 2^80', tarOf(huge('80010000000000000000000000')), /does not begin as one/],
    [
      'a size of −1 in digits',
      tarOf({ ...good, size: Buffer.from('-0000000001\0') }),
      /does not begin as one/,
    ],
    [
      'attributes without end',
      tarOf({ path: 'p', type: 'x', content: '99 path=a\n' }, good),
      /attributes at/,
    ],
    [
      'attributes of no length',
      tarOf({ path: 'p', type: 'x', content: '0 a=b\n' }, good),
      /attributes at byte 0/,
    ],
    ['a negative size attribute', tarOf(paxHeader('size', '-1'), good), /have the size -1/],
    [
      'a size attribute of 10^30',
      tarOf(paxHeader('size', `1${'0'.repeat(30)}`), good),
      /have the size 10000/,
    ],
    [
      'a name of 4 GB',
      tarOf({ path: 'l', type: 'L', size: 2 ** 32 }, good),
      /header at byte 0 is 4294967296 bytes/,
    ],
    [
      'a name beyond the end',
      tarOf({ path: 'l', type: 'L', size: 9000 }, good),
      /header at byte 0 goes beyond/,
    ],
    ['a name without a member', tarOf(good, { path: 'l', type: 'L', content: 'b.jpg' }), /lacks its member/],
    [
      'a path for all',
      tarOf({ ...paxHeader('path', 'x.jpg'), type: 'g' }, good),
      /gives all members one path/,
    ],
    ['a sparse file', tarOf({ ...good, type: 'S' }), /a\.jpg is of type S/],
    ['a sparse file of pax', tarOf(paxHeader('GNU.sparse.major', '1'), good), /is sparse/],
    ['two tars in one', Buffer.concat([tarOf(good), tarOf(good)]), /something follows its end at byte 2560/],
  ])('%s', async (_, bytes, message) => {
    const path = await fileOf(bytes);
    const error = await Promise.resolve()
      .then(() => readTar(path))
      .catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(path);
    expect(error.message).not.toMatch(/\n/);
  });

  it('a missing file', () => {
    expect(() => new TarFile(join(folder, 'none.tar'))).toThrow(/none\.tar: no such file/);
  });

  it('damaged files of every kind', async () => {
    const path = join(folder, 'fuzz.tar');
    const entries = ['gnu', 'pax', 'ustar'].map((format) => readFile(join(folder, `${format}.tar`)));
    const files = await Promise.all(entries);
    const outcome = await fuzz(
      files.map((file) => file.subarray(0, 20_000)),
      { path, count: 300, seed: 7, read: async (damaged) => void readTar(damaged) },
    );
    expect(outcome.refused).toBeGreaterThan(100);
  });
});
