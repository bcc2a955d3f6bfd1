import type { ReadKind } from './image-kind.js';

// Why a decoder failed: a truncated download is the usual reason, and decoders do not report it as such.

/** The least length of the whole file in bytes; undefined if the file is complete or this cannot be determined. */
type End = number | 'no end mark' | undefined;

const viewOf = ({ buffer, byteOffset, length }: Uint8Array) => new DataView(buffer, byteOffset, length);

/** Segments have lengths; a scan ends at the next marker. */
function endOfJpeg(bytes: Uint8Array): End {
  const view = viewOf(bytes);
  let at = 2;
  while (at + 2 <= bytes.length) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1];
    if (marker === 0xd9) return undefined;
    if (marker === 0xff || marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += marker === 0xff ? 1 : 2; // padding, or a marker without a segment
      continue;
    }
    if (at + 4 > bytes.length) break;
    const end = at + 2 + view.getUint16(at + 2);
    if (end > bytes.length) return end;
    at = end;
    if (marker !== 0xda) continue;
    while (at + 1 < bytes.length) {
      const next = bytes[at + 1];
      if (bytes[at] === 0xff && next !== 0 && !(next >= 0xd0 && next <= 0xd7)) break;
      at++;
    }
  }
  return 'no end mark';
}

function endOfPng(bytes: Uint8Array): End {
  const view = viewOf(bytes);
  let at = 8;
  while (at + 8 <= bytes.length) {
    const end = at + 12 + view.getUint32(at);
    if (end > bytes.length) return end;
    if (view.getUint32(at + 4) === 0x49454e44) return undefined; // IEND
    at = end;
  }
  return at + 12;
}

function endOfWebp(bytes: Uint8Array): End {
  return bytes.length < 12 ? 12 : 8 + viewOf(bytes).getUint32(4, true);
}

function endOfGif(bytes: Uint8Array): End {
  const colours = (flags: number) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let at = 13 + colours(bytes[10] ?? 0);
  while (at < bytes.length) {
    const type = bytes[at];
    if (type === 0x3b) return undefined;
    if (type !== 0x21 && type !== 0x2c) return undefined; // damaged, not truncated
    at += type === 0x21 ? 2 : 11 + colours(bytes[at + 9] ?? 0);
    while (at < bytes.length && bytes[at] !== 0) at += 1 + bytes[at];
    at++;
  }
  return at > bytes.length ? at : 'no end mark';
}

/** Bytes per value of each TIFF type. */
const TIFF_SIZES = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8];
const [SHORT, OFFSETS, COUNTS] = [3, [273, 324], [279, 325]];

/**
 * The first directory of a classic TIFF, which may follow the pixels, and the values, strips and tiles that it points to.
 */
function endOfTiff(bytes: Uint8Array): End {
  if (bytes.length < 8) return 8;
  const little = bytes[0] === 0x49;
  const view = viewOf(bytes);
  if (view.getUint16(2, little) !== 42) return undefined;
  const directory = view.getUint32(4, little);
  if (directory + 2 > bytes.length) return directory + 2;
  let end = directory + 2 + 12 * view.getUint16(directory, little) + 4;
  if (end > bytes.length) return end;
  const entries: { tag: number; type: number; count: number; start: number; end: number }[] = [];
  for (let at = directory + 2; at + 12 < end; at += 12) {
    const [tag, type] = [view.getUint16(at, little), view.getUint16(at + 2, little)];
    const size = TIFF_SIZES[type] ?? 0;
    const count = view.getUint32(at + 4, little);
    // Values of up to 4 bytes are in the entry itself.
    const start = size * count <= 4 ? at + 8 : view.getUint32(at + 8, little);
    entries.push({ tag, type, count, start, end: start + size * count });
  }
  for (const entry of entries) end = Math.max(end, entry.end);
  if (end > bytes.length) return end;
  const numbers = (tags: readonly number[]) => {
    const { type, count, start } = entries.find(({ tag }) => tags.includes(tag)) ?? {
      type: 0,
      count: 0,
      start: 0,
    };
    const number = (i: number) =>
      type === SHORT ? view.getUint16(start + 2 * i, little) : view.getUint32(start + 4 * i, little);
    return type === SHORT || type === SHORT + 1 ? Array.from({ length: count }, (_, i) => number(i)) : [];
  };
  const [offsets, counts] = [numbers(OFFSETS), numbers(COUNTS)];
  return offsets.reduce((most, offset, i) => Math.max(most, offset + (counts[i] ?? 0)), end);
}

/** Boxes, each with its length; 0 means up to the end of the file. */
function endOfAvif(bytes: Uint8Array): End {
  const view = viewOf(bytes);
  let at = 0;
  while (at + 16 <= bytes.length) {
    const length = view.getUint32(at);
    if (length === 0) return undefined;
    at += length === 1 ? Number(view.getBigUint64(at + 8)) : Math.max(8, length);
  }
  return at;
}

const ENDS: Partial<Record<ReadKind, (bytes: Uint8Array) => End>> = {
  JPEG: endOfJpeg,
  PNG: endOfPng,
  WebP: endOfWebp,
  GIF: endOfGif,
  TIFF: endOfTiff,
  AVIF: endOfAvif,
};

const count = (bytes: number) => bytes.toLocaleString('en-US');

/** What to say of a file of `length` bytes that needs at least `end`. */
export const cutOffText = (length: number, end: number): string =>
  `it is cut off after ${count(length)} of at least ${count(end)} bytes`;

/** Says how an image file that cannot be decoded is truncated; undefined if it is not, or this cannot be determined. */
export function cutOff(kind: ReadKind, bytes: Uint8Array): string | undefined {
  const end = ENDS[kind]?.(bytes);
  const { length } = bytes;
  if (end === 'no end mark') return `it is cut off after ${count(length)} bytes: it has no end mark`;
  return end !== undefined && end > length ? cutOffText(length, end) : undefined;
}
