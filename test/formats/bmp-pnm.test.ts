import { describe, expect, it } from 'vitest';
import { readBmp } from '../../src/formats/bmp.js';
import { readPnm } from '../../src/formats/pnm.js';
import { Random } from '../../src/random.js';
import { type BmpParts, bmpOf } from '../support/bmp.js';

// Pillow 12.3 reads every valid file here to the same values, except where a test says otherwise.

const anySize = () => {};
const [RED, GREEN, BLUE] = [
  [255, 0, 0],
  [0, 255, 0],
  [0, 0, 255],
];
const GREY = [7, 8, 9];

describe('readBmp', () => {
  const pixels = (parts: BmpParts) => {
    const { width, height, data } = readBmp(bmpOf(parts), anySize);
    expect([width, height]).toEqual([parts.width, Math.abs(parts.height)]);
    return [...data];
  };

  it('24 bits: blue first, rows from the bottom, padded to 4 bytes', () => {
    const stored = [1, 2, 3, 4, 5, 6, 0, 0, 11, 12, 13, 14, 15, 16, 0, 0];
    const [low, high] = [
      [3, 2, 1, 6, 5, 4],
      [13, 12, 11, 16, 15, 14],
    ];
    expect(pixels({ width: 2, height: 2, pixels: stored })).toEqual([...high, ...low]);
    expect(pixels({ width: 2, height: -2, pixels: stored })).toEqual([...low, ...high]);
    // Some writers leave the last row unfilled.
    expect(pixels({ width: 2, height: 2, pixels: stored.slice(0, -2) })).toEqual([...high, ...low]);
  });

  it('palettes of 1, 4 and 8 bits, highest bits first', () => {
    const palette = [RED, GREEN, BLUE, GREY];
    const one = { width: 9, height: 1, bits: 1, palette: [RED, GREEN], pixels: [0b01000001, 0x80, 0, 0] };
    expect(pixels(one)).toEqual([RED, GREEN, RED, RED, RED, RED, RED, GREEN, GREEN].flat());
    const four = { width: 3, height: 2, bits: 4, palette, pixels: [0x12, 0x30, 0, 0, 0x00, 0x10, 0, 0] };
    expect(pixels(four)).toEqual([RED, RED, GREEN, GREEN, BLUE, GREY].flat());
    const eight = { width: 3, height: 1, bits: 8, palette, pixels: [3, 0, 2, 0] };
    expect(pixels(eight)).toEqual([GREY, RED, BLUE].flat());
  });

  it('16 bits: 5 per channel, or by masks', () => {
    // 17 of 31 is 139.8 of 255; 33 of 63 is 133.6: rounded down.
    const five = { width: 2, height: 1, bits: 16, pixels: [0x1f, 0x00, 0x11, 0x7e] };
    expect(pixels(five)).toEqual([0, 0, 255, 255, 131, 139]);
    const six = { ...five, compression: 3, masks: [0xf800, 0x7e0, 0x1f], pixels: [0x1f, 0x00, 0x31, 0xfc] };
    expect(pixels(six)).toEqual([0, 0, 255, 255, 133, 139]);
  });

  it('32 bits: alpha is dropped; masks may reverse the order (which Pillow refuses)', () => {
    const plain = { width: 1, height: 1, bits: 32, pixels: [1, 2, 3, 0] };
    expect(pixels(plain)).toEqual([3, 2, 1]);
    const turned = { ...plain, compression: 3, masks: [0xff, 0xff00, 0xff0000] };
    expect(pixels(turned)).toEqual([1, 2, 3]);
  });

  it('run-length coded, with runs, single values, jumps and ends of rows', () => {
    const palette = [RED, GREEN, BLUE, GREY];
    const [r, g, b, y] = palette;
    const coded = [2, 1, 0, 3, 2, 3, 1, 0, 0, 0, 0, 2, 1, 1, 4, 2, 0, 1];
    const eight = { width: 5, height: 3, bits: 8, compression: 1, palette, pixels: coded };
    expect(pixels(eight)).toEqual(
      [
        [r, b, b, b, b],
        [r, r, r, r, r],
        [g, g, b, y, g],
      ].flat(2),
    );
    const nibbles = [3, 0x12, 0, 4, 0x30, 0x12, 0, 0, 7, 0x30, 0, 1];
    const four = { width: 7, height: 2, bits: 4, compression: 2, palette, pixels: nibbles };
    expect(pixels(four)).toEqual(
      [
        [y, r, y, r, y, r, y],
        [g, b, g, y, r, g, b],
      ].flat(2),
    );
  });

  it.each<[string, Buffer, RegExp]>([
    [
      'cut off in its header',
      bmpOf({ width: 2, height: 2 }).subarray(0, 30),
      /after 30 of at least 54 bytes/,
    ],
    ['cut off in its rows', bmpOf({ width: 9, height: 9, pixels: [1] }), /after 55 of at least 305 bytes/],
    ['cut off in its palette', bmpOf({ width: 1, height: 1, bits: 8 }), /after 54 of at least 1,078 bytes/],
    ['of no width', bmpOf({ width: 0, height: 2 }), /0 × 2 pixels/],
    ['of a negative width', bmpOf({ width: -5, height: 2 }), /-5 × 2 pixels/],
    [
      'with a JPEG inside',
      bmpOf({ width: 1, height: 1, compression: 4 }),
      /24 bits per pixel with compression 4, which is not/,
    ],
    ['of 7 bits', bmpOf({ width: 1, height: 1, bits: 7 }), /7 bits per pixel with compression 0/],
    [
      'with a colour beyond its palette',
      bmpOf({ width: 1, height: 1, bits: 8, palette: [RED], pixels: [1, 0, 0, 0] }),
      /colour 1, but a palette of 1/,
    ],
    [
      'coded without an end',
      bmpOf({ width: 9, height: 9, bits: 8, compression: 1, palette: [RED], pixels: [2, 0] }),
      /cut off after/,
    ],
    [
      'with gaps in a mask',
      bmpOf({ width: 1, height: 1, bits: 16, compression: 3, masks: [5, 8, 16], pixels: [0, 0, 0, 0] }),
      /masks with gaps/,
    ],
  ])('refuses one %s', (_, bytes, message) => {
    expect(() => readBmp(bytes, anySize)).toThrow(message);
  });
});

describe('readPnm', () => {
  const read = (...parts: (string | number[])[]) => {
    const bytes = Buffer.concat(parts.map((part) => Buffer.from(part as string)));
    const { width, height, data } = readPnm(bytes, anySize);
    return [width, height, ...data];
  };

  it('binary and plain, colour and grey, with comments', () => {
    expect(read('P6 2 1 255\n', [1, 2, 3, 4, 5, 6])).toEqual([2, 1, 1, 2, 3, 4, 5, 6]);
    expect(read('P5\n# a camera\n1 2\n255\n', [10, 35])).toEqual([1, 2, 10, 10, 10, 35, 35, 35]);
    expect(read('P3\n1 # wide\n2\n255\n1 2 3\n# row\n4 5 6')).toEqual([1, 2, 1, 2, 3, 4, 5, 6]);
    expect(read('P2 2 1 255 0 128')).toEqual([2, 1, 0, 0, 0, 128, 128, 128]);
  });

  it('other maxima are scaled to 255; of 16 bits the upper 8 are taken (where Pillow rounds)', () => {
    expect(read('P6 1 1 15 ', [0, 7, 15])).toEqual([1, 1, 0, 119, 255]);
    expect(read('P2 3 1 1 0 1 1').slice(2)).toEqual([0, 0, 0, 255, 255, 255, 255, 255, 255]);
    expect(read('P6 1 1 65535\n', [0x12, 0xff, 0x34, 0x80, 0xff, 0])).toEqual([1, 1, 0x12, 0x34, 0xff]);
    expect(read('P5 2 1 1023\n', [0x03, 0xff, 0x02, 0x00]).slice(2)).toEqual([255, 255, 255, 128, 128, 128]);
  });

  it('reads the first of several images', () => {
    expect(read('P5 1 1 255\n', [9], 'P5 1 1 255\n', [8])).toEqual([1, 1, 9, 9, 9]);
  });

  it.each([
    ['P6 9 9 255\nabc', /after 14 of at least 254 bytes/],
    ['P6 9', /cut off after 4/],
    ['P3 1 1 255 1 2    ', /cut off/],
    ['P3 1 1 255 1 2 three', /no number at byte 15/],
    ['P3 1 1 255 1 -2 3', /no number at byte/],
    ['P6 0 9 255\n', /0 × 9 pixels/],
    ['P6 1 1 0\nabc', /maximum value is 0/],
    ['P6 1 1 70000\nabc', /maximum value is 70000/],
    ['P3 1 1 15 1 2 16', /the value 16, which is over its maximum of 15/],
    [`P6 ${'9'.repeat(400)} 1 255\n`, /no number at byte/],
  ])('refuses %j', (text, message) => {
    expect(() => read(text)).toThrow(message);
  });
});

it('changed bytes give pixels or an error message, quickly', () => {
  const random = Random.of(1);
  const files = [
    bmpOf({ width: 5, height: 4, pixels: Array(64).fill(1) }),
    bmpOf({
      width: 5,
      height: 4,
      bits: 8,
      compression: 1,
      palette: [RED, GREEN],
      pixels: [5, 1, 0, 0, 5, 0, 0, 1],
    }),
    bmpOf({
      width: 5,
      height: 4,
      bits: 16,
      compression: 3,
      masks: [0xf800, 0x7e0, 0x1f],
      pixels: Array(48).fill(3),
    }),
    Buffer.from('P6\n# x\n3 2 255\nabcdefghijklmnopqr'),
    Buffer.from('P2\n# x\n3 2 255\n1 2 3 4 5 6'),
  ];
  const small = (width: number, height: number) => {
    if (width * height > 1e5) throw new Error('it is large');
  };
  let whole = 0;
  for (const file of files)
    for (let round = 0; round < 4000; round++) {
      const bytes = Buffer.from(
        file.subarray(0, random.integer(4) === 0 ? random.integer(file.length) : undefined),
      );
      for (let i = 0; i < 2 && bytes.length > 2; i++)
        bytes[2 + random.integer(bytes.length - 2)] = random.integer(256);
      const read = file[0] === 0x42 ? readBmp : readPnm;
      try {
        const { width, height, data } = read(bytes, small);
        expect(data.length).toBe(width * height * 3);
        whole++;
      } catch (error) {
        expect((error as Error).constructor).toBe(Error);
        expect((error as Error).message).toMatch(/^(it |its )/);
      }
    }
  expect(whole).toBeGreaterThan(2000);
});
