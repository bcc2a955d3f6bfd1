import type { CheckSize } from './bmp.js';
import { cutOffText } from './image-end.js';

// The format: https://netpbm.sourceforge.net/doc/ppm.html and pgm.html. Written here because sharp's libvips is built without it.

const WHITE = new Set([...' \t\n\v\f\r'].map((character) => character.charCodeAt(0)));
const [HASH, NEWLINE, RETURN, ZERO] = [...'#\n\r0'].map((character) => character.charCodeAt(0));

/** Reads decimal numbers from `at` on, separated by white space and comments. */
class Numbers {
  constructor(
    private readonly bytes: Uint8Array,
    public at: number,
  ) {}

  next(): number {
    const { bytes } = this;
    for (; WHITE.has(bytes[this.at]) || bytes[this.at] === HASH; this.at++)
      if (bytes[this.at] === HASH)
        while (this.at < bytes.length && bytes[this.at] !== NEWLINE && bytes[this.at] !== RETURN) this.at++;
    if (this.at >= bytes.length) throw new Error(cutOffText(bytes.length, bytes.length + 1));
    let [value, digits] = [0, 0];
    for (; bytes[this.at] >= ZERO && bytes[this.at] <= ZERO + 9; this.at++, digits++)
      value = value * 10 + bytes[this.at] - ZERO;
    if (digits === 0 || value > 2 ** 31)
      throw new Error(`it has no number at byte ${this.at}, where a PNM file needs one`);
    return value;
  }
}

/**
 * Decodes a PPM or PGM file, binary or plain; of several images, the first. `data` is (height, width, 3) RGB, 8 bits per
 * channel. Values with a maximum of at most 255 are scaled and rounded; for larger maxima the upper 8 of 16 bits are taken.
 * @throws Error if it is truncated or damaged; whatever `checkSize` throws
 */
export function readPnm(
  bytes: Uint8Array,
  checkSize: CheckSize,
): { width: number; height: number; data: Uint8Array } {
  const type = bytes[1] - ZERO;
  const numbers = new Numbers(bytes, 2);
  const [width, height, most] = [numbers.next(), numbers.next(), numbers.next()];
  if (width === 0 || height === 0) throw new Error(`it claims a size of ${width} × ${height} pixels`);
  if (most === 0 || most > 65535)
    throw new Error(`its maximum value is ${most}, which is not from 1 to 65535`);
  checkSize(width, height);
  const channels = type === 3 || type === 6 ? 3 : 1;
  const count = width * height * channels;
  const plain = type <= 3;
  const wide = most > 255 ? 2 : 1;
  const start = numbers.at + 1; // after one white-space character
  const end = plain ? start + 2 * count - 1 : start + wide * count;
  if (end > bytes.length) throw new Error(cutOffText(bytes.length, end));
  const stored = (i: number) =>
    wide === 1 ? bytes[start + i] : bytes[start + 2 * i] * 256 + bytes[start + 2 * i + 1];
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, to = 0; i < count; i++) {
    const value = plain ? numbers.next() : stored(i);
    if (value > most) throw new Error(`it has the value ${value}, which is over its maximum of ${most}`);
    const byte = wide === 1 ? Math.round((value * 255) / most) : Math.round((value * 65535) / most) >> 8;
    for (let c = channels; c <= 3; c += channels) data[to++] = byte; // grey: the same for all three
  }
  return { width, height, data };
}
