import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buf as crc32 } from 'crc-32';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeImage, type Image } from '../../../src/data/images/decode.js';
import { encodePng } from '../../../src/data/images/png.js';
import {
  admCenterCrop,
  cropAndFlip,
  randomCropAndFlip,
  resizeShorterSide,
  tenCrop,
} from '../../../src/data/images/preprocess.js';
import { resample } from '../../../src/data/images/resample.js';
import { DataError } from '../../../src/errors.js';
import { Random } from '../../../src/random.js';
import { bmpOf } from '../../support/bmp.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'images-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function decode(name: string, bytes: Uint8Array): Promise<Image> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return decodeImage(path);
}

const SIZE = { width: 8, height: 4 };

/** An 8 × 4 image, every pixel the same. */
const plain = (...pixel: number[]) =>
  sharp(
    Uint8Array.from({ length: 32 * pixel.length }, (_, i) => pixel[i % pixel.length]),
    {
      raw: { ...SIZE, channels: pixel.length as 1 | 2 | 3 | 4 },
    },
  );

const wide = (pixel: number[], space: 'rgb16' | 'grey16') =>
  sharp(
    Uint16Array.from({ length: 32 * pixel.length }, (_, i) => pixel[i % pixel.length]),
    {
      raw: { ...SIZE, channels: pixel.length as 1 | 3 },
    },
  ).toColourspace(space);

/** Noise does not compress, so half of the file is half of the image. */
const noise = (size: number) => {
  const random = Random.of(1);
  const data = Uint8Array.from({ length: size * size * 3 }, () => random.integer(256));
  return sharp(data, { raw: { width: size, height: size, channels: 3 } });
};

describe('decodeImage gives 8-bit RGB', () => {
  it.each<[string, () => Promise<Buffer>, string, number[]]>([
    ['RGB.png', () => plain(10, 20, 30).png().toBuffer(), 'srgb', [10, 20, 30]],
    ['greyscale.png', () => plain(77).toColourspace('b-w').png().toBuffer(), 'b-w', [77, 77, 77]],
    ['greyscale.jpg', () => plain(77).toColourspace('b-w').jpeg().toBuffer(), 'b-w', [77, 77, 77]],
    ['palette.png', () => plain(10, 20, 30).png({ palette: true }).toBuffer(), 'srgb', [10, 20, 30]],
    ['alpha is dropped.png', () => plain(10, 20, 30, 40).png().toBuffer(), 'srgb', [10, 20, 30]],
    ['grey with alpha.png', () => plain(50, 0).toColourspace('b-w').png().toBuffer(), 'b-w', [50, 50, 50]],
    [
      '16-bit RGB.png',
      () => wide([0x12ff, 0x3480, 0xff00], 'rgb16').png().toBuffer(),
      'rgb16',
      [0x12, 0x34, 0xff],
    ],
    ['16-bit grey.png', () => wide([0x56ff], 'grey16').png().toBuffer(), 'grey16', [0x56, 0x56, 0x56]],
    ['name [page=7].GIF', () => plain(10, 20, 30).gif().toBuffer(), 'srgb', [10, 20, 30]],
  ])('%s', async (name, make, space, pixel) => {
    const bytes = await make();
    expect((await sharp(bytes).metadata()).space).toBe(space);
    const { width, height, data } = await decode(name, bytes);
    expect([width, height]).toEqual([8, 4]);
    expect(data).toEqual(Uint8Array.from({ length: 96 }, (_, i) => pixel[i % 3]));
  });

  it('CMYK JPEG, from the ink values alone', async () => {
    // Pure red: no cyan, no black. With libvips's own CMYK profile, the result would be (232, 0, 0).
    const bytes = await plain(255, 0, 0).toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer();
    expect((await sharp(bytes).metadata()).channels).toBe(4);
    const { data } = await decode('cmyk.jpg', bytes);
    expect([...data.subarray(0, 3)]).toEqual([255, 0, 0]);
  });

  it('leaves the EXIF orientation alone', async () => {
    const bytes = await plain(10, 20, 30).withMetadata({ orientation: 6 }).jpeg().toBuffer();
    expect((await sharp(bytes).metadata()).orientation).toBe(6);
    expect(await decode('turned.jpg', bytes)).toMatchObject(SIZE);
  });

  it('encodePng and back', async () => {
    const image = await decode('noise.png', await noise(9).png().toBuffer());
    expect(await decode('again.png', await encodePng(image))).toEqual(image);
  });
});

/** A little-endian TIFF with its directory before everything else, as Pillow writes it. */
function directoryFirst(tiff: Buffer): Buffer {
  const directory = tiff.readUInt32LE(4);
  const entries = tiff.readUInt16LE(directory);
  const head = Buffer.concat([tiff.subarray(0, 8), tiff.subarray(directory, directory + 6 + 12 * entries)]);
  const rest = Buffer.from(tiff.subarray(8));
  const move = head.length - 8;
  head.writeUInt32LE(8, 4);
  for (let at = 10; at < head.length - 4; at += 12) {
    const [tag, count] = [head.readUInt16LE(at), head.readUInt32LE(at + 4)];
    const size = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8][head.readUInt16LE(at + 2)] * count;
    const value = head.readUInt32LE(at + 8);
    if (size > 4) head.writeUInt32LE(value + move, at + 8);
    if (tag !== 273) continue;
    if (size <= 4) head.writeUInt32LE(value + move, at + 8);
    else
      for (let i = value - 8; i < value - 8 + size; i += 4)
        rest.writeUInt32LE(rest.readUInt32LE(i) + move, i);
  }
  return Buffer.concat([head, rest]);
}

describe('decodeImage reports where a file is cut off', () => {
  const kinds = ['jpeg', 'png', 'webp', 'gif', 'avif'] as const;
  it.each(kinds)('%s', async (kind) => {
    const bytes = await noise(32)[kind]().toBuffer();
    await expect(decode('whole', bytes)).resolves.toMatchObject({ width: 32, height: 32 });
    for (const share of [0.1, 0.5, 0.9]) {
      const length = Math.floor(share * bytes.length);
      const count = length.toLocaleString('en-US');
      const { message } = await decode('cut', bytes.subarray(0, length)).catch((e) => e);
      const [, end] =
        /: it is cut off after (?:[\d,]+) of at least ([\d,]+) bytes; /.exec(message) ?? ([] as string[]);
      expect(message).toContain(`it is cut off after ${count} `);
      // The reported size of the whole file is valid: larger than the truncated file, at most the original size.
      if (end === undefined) expect(message).toContain('bytes: it has no end mark');
      else {
        expect(Number(end.replaceAll(',', ''))).toBeGreaterThan(length);
        expect(Number(end.replaceAll(',', ''))).toBeLessThanOrEqual(bytes.length);
      }
    }
  });

  it.each(['none', 'deflate', 'jpeg'] as const)(
    'TIFF, compression %s, wherever its directory is',
    async (compression) => {
      const behind = await noise(32).tiff({ compression }).toBuffer();
      const before = directoryFirst(behind);
      const whole = await decode('behind', behind);
      expect(await decode('before', before)).toEqual(whole);
      for (const bytes of [behind, before])
        for (const share of [0.1, 0.5, 0.9])
          await expect(decode('cut', bytes.subarray(0, share * bytes.length))).rejects.toThrow(
            /: it is cut off after [\d,]+ of at least [\d,]+ bytes; /,
          );
    },
  );

  it('but not for a complete file with damaged content', async () => {
    const bytes = await noise(32).png().toBuffer();
    bytes.fill(0, 1500, 1600);
    await expect(decode('damaged.png', bytes)).rejects.toThrow(
      /damaged\.png: it cannot be decoded: .*libpng/,
    );
  });

  it('the end mark of a thumbnail is not the end of the file', async () => {
    const thumbnail = await noise(8).jpeg().toBuffer();
    const bytes = await noise(32).jpeg().toBuffer();
    const segment = Buffer.from([0xff, 0xe1, (thumbnail.length + 2) >> 8, (thumbnail.length + 2) & 255]);
    const whole = Buffer.concat([bytes.subarray(0, 2), segment, thumbnail, bytes.subarray(2)]);
    await expect(decode('whole.jpg', whole)).resolves.toMatchObject({ width: 32 });
    await expect(decode('cut.jpg', whole.subarray(0, -100))).rejects.toThrow(
      /cut off after [\d,]+ bytes: it has no end mark/,
    );
  });
});

describe('decodeImage detects the format from the first bytes', () => {
  it('whatever its name', async () => {
    const bytes = await noise(9).png().toBuffer();
    expect(await decode('png.jpg', bytes)).toMatchObject({ width: 9 });
  });

  const heic = Buffer.concat([Buffer.from([0, 0, 0, 24]), Buffer.from('ftypheic\0\0\0\0mif1heic')]);
  it.each<[string, Uint8Array, RegExp]>([
    [
      'page.jpg',
      Buffer.from('<!DOCTYPE html>\n<html>404'),
      /not an image: it begins with <!DOCTYPE html> <html>4/,
    ],
    ['zeros.png', new Uint8Array(5000), /all of its 5,000 bytes are zero/],
    ['empty.png', new Uint8Array(), /empty\.png: it is empty/],
    ['apple.png', Uint8Array.of(0, 5, 22, 7, 0, 2), /it begins with 00 05 16 07 00 02/],
    ['photo.jpg', heic, /its format, HEIC, is not supported; convert it/],
    [
      'drawing.png',
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'),
      /its format, SVG, is not supported/,
    ],
  ])('%s', async (name, bytes, message) => {
    await expect(decode(name, bytes)).rejects.toThrow(message);
  });
});

describe('the pixel limit', () => {
  it.each(['jpeg', 'png', 'webp', 'gif', 'tiff', 'avif'] as const)('of %s', async (kind) => {
    const bytes = Promise.resolve(await noise(20)[kind]().toBuffer());
    expect(await decodeImage('x', bytes, 400)).toMatchObject({ width: 20 });
    await expect(decodeImage('x', bytes, 399)).rejects.toThrow(
      /x: it has 20 × 20 = 400 pixels, over the limit of 399; scale it down, or raise the limit with maxPixels/,
    );
  });

  it('defaults to that of libvips', async () => {
    // Only the header has this size, and only the header is read.
    const bytes = await noise(8).png().toBuffer();
    bytes.writeUInt32BE(65_500, 16);
    bytes.writeUInt32BE(4_200, 20);
    bytes.writeInt32BE(crc32(bytes.subarray(12, 29)), 29);
    await expect(decodeImage('x', Promise.resolve(bytes))).rejects.toThrow(
      /65500 × 4200 = 275,100,000 pixels, over the limit of 268,402,689/,
    );
  });

  it.each<[string, Uint8Array]>([
    ['bmp', bmpOf({ width: 1e9, height: 1e9 })],
    ['ppm', Buffer.from('P6 1000000000 1000000000 255\n')],
  ])('of a %s of 10^18 pixels, before memory is taken', async (_, bytes) => {
    await expect(decodeImage('x', Promise.resolve(bytes))).rejects.toThrow(/over the limit of 268,402,689/);
  });
});

describe('decodeImage names what it cannot read', () => {
  it.each<[string, () => Promise<Uint8Array>]>([
    ['truncated.jpg', async () => (await noise(64).jpeg().toBuffer()).subarray(0, 2000)],
    ['truncated.png', async () => (await noise(64).png().toBuffer()).subarray(0, 6000)],
    ['without its end.jpg', async () => (await noise(64).jpeg().toBuffer()).subarray(0, -2)],
    ['text.jpg', async () => Buffer.from('a text, not a picture')],
    ['empty.jpg', async () => new Uint8Array(0)],
  ])('%s', async (name, make) => {
    const error = await decode(name, await make()).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toContain(join(folder, name));
    expect(error.message).not.toContain('\n');
  });

  it('a missing file', async () => {
    await expect(decodeImage(join(folder, 'none.jpg'))).rejects.toThrow(/none.jpg: no such file/);
  });
});

/** Column in red, row in green, so that the position of a crop is visible. */
const ramp = (width: number, height: number): Image => ({
  width,
  height,
  data: Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return [pixel % width, Math.floor(pixel / width), 7][i % 3];
  }),
});
const corner = ({ data }: Image) => [data[0], data[1]];

describe('resample', () => {
  it('averages pairs with the box filter when halving', () => {
    const data = Uint8Array.of(0, 0, 0, 10, 20, 30, 4, 4, 4, 7, 8, 9);
    const halved = resample({ width: 4, height: 1, data }, 2, 1, 'box');
    // A half is rounded up: (4 + 7) / 2, (4 + 9) / 2
    expect(halved).toEqual({ width: 2, height: 1, data: Uint8Array.of(5, 10, 15, 6, 6, 7) });
  });

  it('keeps a uniform image uniform and clips overshoots to 0 and 255', () => {
    const plainImage = { width: 5, height: 3, data: new Uint8Array(45).fill(201) };
    expect(new Set(resample(plainImage, 11, 2, 'bicubic').data)).toEqual(new Set([201]));
    const edge = { width: 4, height: 1, data: Uint8Array.of(0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255) };
    const { data } = resample(edge, 8, 1, 'bicubic');
    // Keys' cubic at a quarter pixel from an edge: the undershoot −9/128·255 is clipped to 0.
    expect([...data].filter((_, i) => i % 3 === 0)).toEqual([0, 0, 0, 52, 203, 255, 255, 255]);
  });
});

describe('crops', () => {
  it('ADM crop takes the centre of an image with the right shorter side', async () => {
    const cropped = await admCenterCrop(ramp(21, 8), 8);
    expect(cropped).toMatchObject({ width: 8, height: 8 });
    expect(corner(cropped)).toEqual([6, 0]);
  });

  it('an image of the right size is unchanged', async () => {
    const image = ramp(8, 8);
    expect(await admCenterCrop(image, 8)).toBe(image);
    expect(await resizeShorterSide(image, 8)).toBe(image);
    const [same, flipped] = await cropAndFlip(image, 8);
    expect(same).toBe(image);
    expect(corner(flipped)).toEqual([7, 0]);
  });

  it('ten-crop has the order top left, top right, bottom left, bottom right, centre, then flipped', async () => {
    // ⌊1.1 · 30⌋ = 33: the image is not resized. The centre starts at 1.5, rounded to the even 2.
    const crops = await tenCrop(ramp(33, 33), 30);
    expect(crops.map(corner)).toEqual([
      [0, 0],
      [3, 0],
      [0, 3],
      [3, 3],
      [2, 2],
      [32, 0],
      [29, 0],
      [32, 3],
      [29, 3],
      [30, 2],
    ]);
    expect(
      crops.every(({ width, height, data }) => width === 30 && height === 30 && data.length === 2700),
    ).toBe(true);
  });

  it('training crop resizes the shorter side, and crops and flips at random', async () => {
    expect(await resizeShorterSide(ramp(50, 33), 16)).toMatchObject({ width: 24, height: 16 });
    expect(await resizeShorterSide(ramp(10, 13), 16)).toMatchObject({ width: 16, height: 20 });
    const lefts = new Set<number>();
    const flips = new Set<boolean>();
    for (let seed = 0; seed < 60; seed++) {
      const { data } = randomCropAndFlip(await resizeShorterSide(ramp(12, 8), 8), 8, Random.of(seed));
      const flip = data[0] > data[3];
      flips.add(flip);
      lefts.add(flip ? data[0] - 7 : data[0]);
    }
    expect([...lefts].sort()).toEqual([0, 1, 2, 3, 4]);
    expect(flips.size).toBe(2);
  });
});
