import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, test } from 'vitest';
import { labelledGrid, pairSheet, renderSvg } from '../../src/data/sheets.js';

// A machine without fonts: text must come from the package's own.
const folder = mkdtempSync(join(tmpdir(), 'sheets-'));
process.env.FONTCONFIG_FILE = join(folder, 'empty.conf');
writeFileSync(process.env.FONTCONFIG_FILE, '<?xml version="1.0"?><fontconfig></fontconfig>');
afterAll(() => rmSync(folder, { recursive: true }));

const plain = (size: number, colour: number[]) =>
  Uint8Array.from({ length: size * size * 3 }, (_, i) => colour[i % 3]);

async function read(png: Buffer) {
  const { data, info } = await sharp(png).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const at = (x: number, y: number) => [...data.subarray(3 * (y * info.width + x)).subarray(0, 3)];
  /** Columns with dark pixels between rows `top` and `bottom`. */
  const inked = (top: number, bottom: number) => {
    const columns = new Set<number>();
    for (let y = top; y < bottom; y++) {
      for (let x = 0; x < info.width; x++) if (at(x, y)[0] < 128) columns.add(x);
    }
    return [...columns].sort((a, b) => a - b);
  };
  return { ...info, at, inked };
}

test('text has real glyphs, not boxes, on a machine without fonts', async () => {
  const ink = async (text: string, weight = 'normal') => {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="200" height="40">
      <rect width="200" height="40" fill="#fff"/>
      <text x="10" y="25" font-family="DejaVu Sans" font-size="20" font-weight="${weight}">${text}</text></svg>`;
    return (await read(await renderSvg(svg))).inked(0, 40).at(-1)!;
  };
  expect((await ink('mmmmm')) - (await ink('iiiii'))).toBeGreaterThan(50);
  // The bold face is wider; a regular one that is drawn twice would not be.
  expect((await ink('mmmmm', 'bold')) - (await ink('mmmmm'))).toBeGreaterThan(4);
});

test('a grid keeps every pixel of every image, enlarged by a whole number', async () => {
  const colours = [
    [200, 0, 0],
    [0, 200, 0],
    [0, 0, 200],
  ];
  const images = colours.map((colour) => plain(4, colour));
  images[0].set([1, 2, 3], 3 * (2 * 4 + 3)); // row 2, column 3
  const png = await labelledGrid(images, { size: 4, columns: 2, scale: 10 });
  const { width, height, at } = await read(png);
  expect([width, height]).toEqual([16 + 40 + 10 + 40 + 16, 16 + 40 + 10 + 40 + 16]);
  expect(at(16, 16)).toEqual(colours[0]);
  expect(at(16 + 30, 16 + 20)).toEqual([1, 2, 3]);
  expect(at(16 + 39, 16 + 29)).toEqual([1, 2, 3]);
  expect(at(16 + 29, 16 + 29)).toEqual(colours[0]);
  expect(at(16 + 39, 16 + 30)).toEqual(colours[0]);
  expect(at(16 + 50, 16)).toEqual(colours[1]);
  expect(at(16 + 39, 16 + 50 + 39)).toEqual(colours[2]);
  expect(at(16 + 50, 16 + 50)).toEqual([250, 250, 250]);

  const together = new Uint8Array(3 * 48);
  for (const [i, image] of images.entries()) together.set(image, i * 48);
  expect(await labelledGrid(together, { size: 4, columns: 2, scale: 10 })).toEqual(png);
});

test('small images are enlarged up to 128 pixels, large ones are unchanged', async () => {
  const side = async (size: number) =>
    (await read(await labelledGrid([plain(size, [9, 9, 9])], { size, columns: 5 }))).width - 32;
  expect([await side(32), await side(48), await side(256)]).toEqual([128, 96, 256]);
});

test('labels are below their image and never overlap the next one', async () => {
  const images = Array.from({ length: 3 }, () => plain(32, [255, 255, 255]));
  const labels = ['left', 'a class name that is much longer than its picture, <b> & all', ''];
  const { inked } = await read(await labelledGrid(images, { size: 32, columns: 3, labels }));
  const columns = inked(16 + 128, 16 + 128 + 18);
  const [first, second, third] = [0, 1, 2].map((i) =>
    columns.filter((x) => x >= 16 + i * 138 && x < 16 + i * 138 + 128),
  );
  expect(first.length + second.length + third.length).toBe(columns.length);
  expect((first[0] + first.at(-1)!) / 2).toBeCloseTo(16 + 64, -1);
  expect(second.at(-1)! - second[0]).toBeGreaterThan(100);
  expect(third).toEqual([]);
});

test('row labels are to the left of the images', async () => {
  const images = Array.from({ length: 4 }, () => plain(32, [255, 255, 255]));
  const rowLabels = ['one', 'a second row with a name that is far too long to be shown'];
  const { width, inked } = await read(await labelledGrid(images, { size: 32, columns: 2, rowLabels }));
  expect(width).toBe(16 + 180 + 10 + 2 * 128 + 10 + 16);
  for (const row of [0, 1]) {
    const columns = inked(16 + row * 138, 16 + row * 138 + 128);
    expect(columns.length).toBeGreaterThan(10);
    expect(columns[0]).toBeGreaterThanOrEqual(12);
    expect(columns.at(-1)).toBeLessThanOrEqual(16 + 180);
  }
});

test('pairs are side by side under their header', async () => {
  const originals = [plain(8, [200, 0, 0]), plain(8, [0, 200, 0]), plain(8, [0, 0, 200])];
  const reconstructions = originals.map((pixels) => pixels.map((value) => value / 2));
  const options = { size: 8, columns: 2, labels: ['a', 'b', 'c'] };
  const { width, height, at, inked } = await read(await pairSheet(originals, reconstructions, options));
  expect([width, height]).toEqual([16 + 258 + 20 + 258 + 16, 34 + 2 * (128 + 18 + 10) - 10 + 16]);
  expect(at(16, 34)).toEqual([200, 0, 0]);
  expect(at(16 + 130, 34)).toEqual([100, 0, 0]);
  expect(at(16 + 278 + 257, 34 + 127)).toEqual([0, 100, 0]);
  expect(at(16 + 130, 34 + 156)).toEqual([0, 0, 100]);
  const header = inked(0, 34);
  for (const middle of [16 + 64, 16 + 194, 16 + 342, 16 + 472]) {
    expect(header.filter((x) => Math.abs(x - middle) < 64).length).toBeGreaterThan(20);
  }
});
