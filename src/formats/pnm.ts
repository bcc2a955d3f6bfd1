import type { CheckSize } from './bmp.js';
import { cutOffText } from './image-end.js';

// The format: https://netpbm.sourceforge.net/doc/ppm.html and pgm.html. sharp's libvips comes without it.

const WHITE = new Set([...' \t\n\v\f\r'].map((character) => character.charCodeAt(0)));
const [HASH, NEWLINE, RETURN, ZERO] = [...'#\n\r0'].map((character) => character.charCodeAt(0));

/** Reads numbers in decimal digits from `at` on, between white space and comments. */
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
      throw new Error(`what stands at byte ${this.at} of this PNM file should be a number, and is none`);
    return value;
  }
}

/**
 * Reads a PPM or PGM file, binary or plain, the first image where there are several: `data` is (height, width, 3) RGB,
 * 8 bits a channel. Up to a maximum of 255 values are scaled and rounded; of wider ones the upper 8 bits are taken.
 * @throws Error where it is cut off or damaged; what `checkSize` throws
 */
export function readPnm(
  bytes: Uint8Array,
  checkSize: CheckSize,
): { width: number; height: number; data: Uint8Array } {
  const type = bytes[1] - ZERO;
  const numbers = new Numbers(bytes, 2);
  const [width, height, most] = [numbers.next(), numbers.next(), numbers.next()];
  if (width === 0 || height === 0) throw new Error(`it says that it is ${width} × ${height} pixels large`);
  if (most === 0 || most > 65535) throw new Error(`its largest value is ${most}, and not from 1 to 65535`);
  checkSize(width, height);
  const channels = type === 3 || type === 6 ? 3 : 1;
  const count = width * height * channels;
  const plain = type <= 3;
  const wide = most > 255 ? 2 : 1;
  const start = numbers.at + 1; // after one white space
  const end = plain ? start + 2 * count - 1 : start + wide * count;
  if (end > bytes.length) throw new Error(cutOffText(bytes.length, end));
  const stored = (i: number) =>
    wide === 1 ? bytes[start + i] : bytes[start + 2 * i] * 256 + bytes[start + 2 * i + 1];
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, to = 0; i < count; i++) {
    const value = plain ? numbers.next() : stored(i);
    if (value > most) throw new Error(`it has the value ${value}, over its largest of ${most}`);
    const byte = wide === 1 ? Math.round((value * 255) / most) : Math.round((value * 65535) / most) >> 8;
    for (let c = channels; c <= 3; c += channels) data[to++] = byte; // a grey value stands for all three
  }
  return { width, height, data };
}
