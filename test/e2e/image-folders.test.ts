import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { openTokenCache } from '../../src/tokens/cache.js';
import { bmpOf } from '../support/bmp.js';
import { alitok, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

// Typical user folders: from a Mac, from network storage, with links, with files of cameras.

const at = await temporaryFolder();
useOneThread();
await tinyRun(at());
const tokenizer = ['--tokenizer', at('tokenizer')];

const picture = (width = 20, height = 18) =>
  sharp({ create: { width, height, channels: 3, background: 'teal' } });

async function write(path: string, bytes: Uint8Array | string): Promise<void> {
  await mkdir(dirname(at(path)), { recursive: true });
  await writeFile(at(path), bytes);
}

/** Two classes with two pictures each. */
async function plain(folder: string): Promise<void> {
  const png = await picture().png().toBuffer();
  for (const name of ['cat/0.png', 'cat/1.png', 'dog/0.png', 'dog/1.png'])
    await write(`${folder}/${name}`, png);
}

/** The log lines with these words, without the time. */
const lines = (stderr: string, words: RegExp) =>
  stderr
    .split('\n')
    .filter((line) => words.test(line))
    .map((line) => line.replace(/^\S+ /, ''));

const train = (data: string, run: string, ...more: string[]) =>
  alitok('train-tokenizer', '-c', TINY, '-d', at(data), '-r', at(run), '--stage', '1', ...more);

describe('files in a folder that are not images', async () => {
  await plain('odd');
  await write('odd/__MACOSX/cat/._0.png', Uint8Array.of(0, 5, 22, 7));
  await write('odd/dog/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg', await picture().jpeg().toBuffer());
  await write('odd/cat/Thumbs.db', 'x');
  await write('odd/cat/.0.png', 'x');
  await write('odd/readme.txt', 'x');
  for (const name of ['0.heic', '1.heic', '2.jxl']) await write(`odd/cat/${name}`, 'x');
  await symlink('..', at('odd/cat/up'));
  const expected =
    /odd: 4 images in 2 classes \(left out: 2 system folders, 1 system file, 1 hidden file, 1 link to a parent folder, 3 unsupported images, 1 file that is not an image\)$/;
  const unread =
    /odd: left out 3 unsupported images: 2 \.heic, 1 \.jxl; convert them, for instance to \.png$/;

  it.each([
    ['train-tokenizer --dry-run', () => train('odd', 'none', '--dry-run')],
    ['train-features', () => alitok('train-features', '-c', TINY, '-d', at('odd'), '-r', at('features-odd'))],
    [
      'tokenize',
      () => alitok('tokenize', '-c', TINY, ...tokenizer, '-d', at('odd'), '-o', at('odd.safetensors')),
    ],
    ['reconstruct', () => alitok('reconstruct', ...tokenizer, '-d', at('odd'), '-o', at('pairs-odd'))],
    ['eval reconstruction', () => alitok('eval', 'reconstruction', ...tokenizer, '-d', at('odd'))],
    [
      'stats',
      async () => {
        const features = at('features-plain');
        await succeed('train-features', '-c', TINY, '-d', at('gap'), '--allow-empty-classes', '-r', features);
        const images = ['-d', at('odd'), '--size', '16', '--keep', '2'];
        return alitok('stats', ...images, '--features', features, '-o', at('odd.npz'));
      },
    ],
  ])('%s says so in one line, and what could be converted in another', async (_, run) => {
    const { code, stderr } = await run();
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const found = lines(stderr, /left out/);
    expect(found).toHaveLength(2);
    expect(found[0]).toMatch(/^INFO: /);
    expect(found[0]).toMatch(expected);
    expect(found[1]).toMatch(/^WARN: /);
    expect(found[1]).toMatch(unread);
  });

  it('train-ar reports the content of the token cache', async () => {
    const run = ['-c', TINY, '--tokens', at('tokens.safetensors'), '-r', at('none'), '--dry-run'];
    const { stderr } = await succeed('train-ar', ...run);
    const [line, ...more] = lines(stderr, /tokens\.safetensors: /);
    expect(line).toMatch(
      /^INFO: .*tokens\.safetensors: \d+ images in \d+ classes, each in \d+ crops \(.*\) of \d+ codes$/,
    );
    expect(more).toEqual([]);
  });

  it('a folder of unsupported images is reported', async () => {
    await write('phone/0.heic', 'x');
    const { code, stderr } = await train('phone', 'none', '--dry-run');
    expect(code).toBe(3);
    expect(stderr).toMatch(
      /^error: .*phone holds no images \(left out: 1 unsupported image\); .*1 \.heic; convert/m,
    );
  });
});

describe('a class folder without an image', async () => {
  await plain('gap');
  await write('gap/bee/notes.txt', 'x');
  const tokenize = (...more: string[]) =>
    alitok('tokenize', '-c', TINY, ...tokenizer, '-d', at('gap'), '-o', at('gap.safetensors'), ...more);

  it.each([
    ['train-tokenizer', () => train('gap', 'none')],
    ['train-features', () => alitok('train-features', '-c', TINY, '-d', at('gap'), '-r', at('none'))],
    ['tokenize', () => tokenize()],
  ])('%s refuses it by name, in one line', async (_, run) => {
    const { code, stderr, stdout } = await run();
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toMatch(
      /^error: .*gap has 1 class folder without an image \(bee\).*--allow-empty-classes\n$/,
    );
  });

  it('keeps its class number with --allow-empty-classes', async () => {
    const { code, stderr } = await tokenize('--allow-empty-classes');
    expect([code, lines(stderr, /gap: /)]).toEqual([
      0,
      [expect.stringContaining('4 images in 3 classes, 1 without an image: bee (left out: 1 file')],
    ]);
    const cache = await openTokenCache(at('gap.safetensors'));
    expect([cache.classNames, [...cache.classes]]).toEqual([
      ['bee', 'cat', 'dog'],
      [1, 1, 2, 2],
    ]);
    await cache.close();
  });
});

describe('kinds of images', async () => {
  await write('kinds/a/x.bmp', bmpOf({ width: 20, height: 16, pixels: Array(20 * 16 * 3).fill(90) }));
  await write('kinds/a/x.PPM', Buffer.concat([Buffer.from('P6 20 16 255\n'), Buffer.alloc(960, 80)]));
  await write('kinds/a/x.pgm', Buffer.concat([Buffer.from('P5 20 16 255\n'), Buffer.alloc(320, 70)]));
  for (const name of ['x.jfif', 'x.jpe', 'x.JPG'])
    await write(`kinds/a/${name}`, await picture().jpeg().toBuffer());
  for (const kind of ['gif', 'tiff', 'webp', 'avif'] as const)
    await write(`kinds/a/x.${kind}`, await picture()[kind]().toBuffer());

  it('are all read', async () => {
    const { stdout, stderr } = await succeed(
      'reconstruct',
      ...tokenizer,
      '-d',
      at('kinds'),
      '-o',
      at('pairs'),
    );
    expect(stdout).toContain('10 pairs');
    expect(stderr).not.toContain('WARN');
  });
});

describe('single images', async () => {
  const jpeg = await picture().jpeg().toBuffer();
  const good = await picture().png().toBuffer();
  for (let i = 0; i < 300; i++) await write(`many/${i}.png`, good);
  await write('many/cut.jpg', jpeg.subarray(0, -2));
  await write('many/page.jpg', '<!DOCTYPE html>');
  await write('many/large.png', await picture(30, 40).png().toBuffer());
  await write('many/small.png', await picture(2, 2).png().toBuffer());
  await write('many/thin.png', await picture(1, 300).png().toBuffer());
  const stats = (...more: string[]) =>
    succeed('reconstruct', ...tokenizer, '-d', at('many'), '-o', at('pairs-many'), '-n', '400', ...more);

  it('that cannot be read are named with the reason, small ones are counted', async () => {
    const { stdout, stderr } = await stats('--max-pixels', '1199');
    expect(stdout).toContain('302 pairs');
    const skipped = lines(stderr, /skipped/);
    expect(skipped).toHaveLength(3);
    expect(stderr).toContain(`cut.jpg: it is cut off after ${jpeg.length - 2} bytes: it has no end mark`);
    expect(stderr).toContain('page.jpg: it is not an image: it begins with <!DOCTYPE html>');
    expect(stderr).toContain('large.png: it has 30 × 40 = 1,200 pixels, over the limit of 1,199');
    expect(lines(stderr, /smaller/)).toEqual([
      `WARN: ${at('many')}: 2 images are smaller than 16 × 16 pixels and were enlarged (small.png, 2 × 2, …); leave them out, or lower the size, for sharp results`,
    ]);
  });

  it('are read up to the pixel limit', async () => {
    const { stdout, stderr } = await stats('--max-pixels', '1200');
    expect(stdout).toContain('303 pairs');
    expect(stderr).not.toContain('large.png');
  });

  it('that are small are reported once by training, with both stages and previews', async () => {
    await plain('little');
    await write('little/cat/2.png', await picture(9, 20).png().toBuffer());
    const data = ['-c', TINY, '-d', at('little')];
    for (const more of [[], ['--dry-run']]) {
      const run = await succeed('train-tokenizer', ...data, '-r', at(`little-run${more.length}`), ...more);
      expect(lines(run.stderr, /smaller/)).toEqual([
        expect.stringMatching(
          /^WARN: .*little: 1 image is smaller than 16 × 16 pixels and was enlarged \(cat\/2\.png, 9 × 20\)/,
        ),
      ]);
    }
    const tokens = at('little.safetensors');
    const { stderr } = await succeed('tokenize', ...data, ...tokenizer, '-o', tokens);
    expect(lines(stderr, /smaller/)).toHaveLength(1);
    expect((await readFile(tokens)).length).toBeGreaterThan(0);
  });
});
