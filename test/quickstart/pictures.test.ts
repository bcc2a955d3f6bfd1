import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { OutputError } from '../../src/errors.js';
import { coverage, drawPicture, drawPictures, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pictures-'));
});
afterEach(() => rm(folder, { recursive: true }));

test('a picture set has every class, in sorted order, and nothing else', async () => {
  const target = await drawPictures({ folder, perClass: 3, seed: 1, split: 'train' });
  expect(target).toBe(join(folder, 'train'));
  expect(await readdir(folder)).toEqual(['train']);
  expect((await readdir(target)).sort()).toEqual(PICTURE_CLASSES);
  expect(PICTURE_CLASSES).toHaveLength(12);
  for (const name of PICTURE_CLASSES) {
    expect((await readdir(join(target, name))).sort()).toEqual(['00000.png', '00001.png', '00002.png']);
  }
  const { width, height, channels, format } = await sharp(join(target, 'red-circle/00000.png')).metadata();
  expect({ width, height, channels, format }).toEqual({ width: 32, height: 32, channels: 3, format: 'png' });
});

test('a picture depends only on seed, split, class and number', async () => {
  const draw = (part: string, options: { perClass: number; seed: number; split: string }) =>
    drawPictures({ folder: join(folder, part), ...options });
  const a = await draw('a', { perClass: 1, seed: 1, split: 'train' });
  const b = await draw('b', { perClass: 2, seed: 1, split: 'train' });
  const otherSeed = await draw('c', { perClass: 1, seed: 2, split: 'train' });
  const otherSplit = await draw('a', { perClass: 1, seed: 1, split: 'val' });
  const first = (target: string) => readFile(join(target, 'blue-square/00000.png'));
  expect(await first(b)).toEqual(await first(a));
  expect(await readFile(join(b, 'blue-square/00001.png'))).not.toEqual(await first(a));
  expect(await first(otherSeed)).not.toEqual(await first(a));
  expect(await first(otherSplit)).not.toEqual(await first(a));
});

test('an existing set is not changed', async () => {
  await drawPictures({ folder, perClass: 1, seed: 1, split: 'train' });
  const again = drawPictures({ folder, perClass: 2, seed: 1, split: 'train' });
  await expect(again).rejects.toThrow(OutputError);
  await expect(again).rejects.toThrow(/train exists already/);
  expect(await readdir(join(folder, 'train/red-cross'))).toEqual(['00000.png']);
});

test('a folder that cannot be written is an OutputError that names it', async () => {
  const target = drawPictures({ folder: '/dev/null/set', perClass: 1, seed: 1, split: 'train' });
  await expect(target).rejects.toThrow(OutputError);
  await expect(target).rejects.toThrow('/dev/null/set');
});

test('a shape covers its true area at every rotation', () => {
  const area = (shape: 'circle' | 'square', turn: number) =>
    coverage(shape, { size: 64, x: 30.3, y: 33.1, radius: 20, turn }).reduce((a, b) => a + b, 0);
  for (const turn of [0, 0.3]) {
    expect(area('circle', turn) / (Math.PI * 20 ** 2)).toBeCloseTo(1, 2);
    expect(area('square', turn) / (2 * 0.86 * 20) ** 2).toBeCloseTo(1, 2);
  }
});

test('shapes are whole: the border of a picture is grey', () => {
  const random = Random.of(4, 'border');
  for (let i = 0; i < 240; i++) {
    const pixels = drawPicture(PICTURE_CLASSES[i % 12], 32, random);
    for (let at = 0; at < 32 * 32; at++) {
      if (at % 32 > 0 && at % 32 < 31 && at >= 32 && at < 31 * 32) continue;
      const pixel = pixels.subarray(3 * at, 3 * at + 3);
      expect(Math.max(...pixel) - Math.min(...pixel)).toBeLessThan(12);
    }
  }
});
