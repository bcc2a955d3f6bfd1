import { cutOffText } from './image-end.js';
import { BMP_HEADERS } from './image-kind.js';

// The format: https://learn.microsoft.com/en-us/windows/win32/gdi/bitmap-storage. Written here because sharp's libvips is built
// without it, and no npm package reads palettes, masks and compressed rows correctly.

/** Called with an image's size before memory is allocated for it; throws if it is too large. */
export type CheckSize = (width: number, height: number) => void;

interface Header {
  width: number;
  height: number;
  topDown: boolean;
  bits: number;
  compression: number;
  /** Position of the first pixel. */
  offset: number;
  /** Bit masks of red, green and blue, unless pixels are palette indices. */
  masks: readonly number[];
  /** 3 bytes per colour: RGB. */
  palette: Uint8Array;
}

const RGB = 0;
const RLE8 = 1;
const RLE4 = 2;
const BITFIELDS = 3;
const ALPHA_BITFIELDS = 6;

const MASKS_16 = [0x7c00, 0x03e0, 0x001f];
const MASKS_32 = [0xff0000, 0xff00, 0xff];

function readHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const need = (end: number) => {
    if (end > bytes.length) throw new Error(cutOffText(bytes.length, end));
  };
  need(18);
  const size = view.getUint32(14, true);
  if (!BMP_HEADERS.includes(size))
    throw new Error(`it is a BMP with a header of ${size} bytes, which is not supported`);
  need(14 + size);
  const core = size === 12; // OS/2 header with 16-bit fields
  const width = core ? view.getUint16(18, true) : view.getInt32(18, true);
  const signed = core ? view.getUint16(20, true) : view.getInt32(22, true);
  const bits = view.getUint16(core ? 24 : 28, true);
  const compression = size >= 20 ? view.getUint32(30, true) : RGB;
  const masked = compression === BITFIELDS || compression === ALPHA_BITFIELDS;
  const depths: Partial<Record<number, number[]>> = {
    [RGB]: [1, 4, 8, 16, 24, 32],
    [RLE8]: [8],
    [RLE4]: [4],
    [BITFIELDS]: [16, 32],
    [ALPHA_BITFIELDS]: [16, 32],
  };
  if (!depths[compression]?.includes(bits))
    throw new Error(
      `it is a BMP of ${bits} bits per pixel with compression ${compression}, which is not supported`,
    );
  // With a header too short for the masks, they follow it.
  let end = 14 + size;
  if (masked && size < 52) end += compression === ALPHA_BITFIELDS ? 16 : 12;
  need(masked ? Math.max(66, end) : end);
  const masks = masked
    ? [54, 58, 62].map((at) => view.getUint32(at, true))
    : bits === 16
      ? MASKS_16
      : MASKS_32;
  const stated = size >= 36 ? view.getUint32(46, true) : 0;
  const colours = bits > 8 ? 0 : stated === 0 ? 2 ** bits : stated;
  if (colours > 2 ** bits) throw new Error(`it has a palette of ${colours} colours for ${bits} bits a pixel`);
  const entry = core ? 3 : 4;
  need(end + colours * entry);
  const palette = new Uint8Array(colours * 3);
  for (let i = 0; i < colours; i++)
    for (let c = 0; c < 3; c++) palette[3 * i + c] = bytes[end + i * entry + 2 - c];
  const offset = view.getUint32(10, true) || end + colours * entry;
  return { width, height: Math.abs(signed), topDown: signed < 0, bits, compression, offset, masks, palette };
}

/**
 * Decodes a BMP file. `data` is (height, width, 3) RGB, 8 bits per channel; alpha is dropped, as by Pillow.
 * @throws Error if it is truncated, damaged or of an unsupported kind; whatever `checkSize` throws
 */
export function readBmp(
  bytes: Uint8Array,
  checkSize: CheckSize,
): { width: number; height: number; data: Uint8Array } {
  const header = readHeader(bytes);
  const { width, height, bits, compression } = header;
  if (width <= 0 || height === 0) throw new Error(`it claims a size of ${width} × ${height} pixels`);
  checkSize(width, height);
  const row = Math.ceil((width * bits) / 32) * 4;
  const packed = compression === RLE8 || compression === RLE4;
  if (!packed) {
    // Some writers do not pad the last row.
    const end = header.offset + row * (height - 1) + Math.ceil((width * bits) / 8);
    if (end > bytes.length) throw new Error(cutOffText(bytes.length, end));
  }
  const data = new Uint8Array(width * height * 3);
  if (bits <= 8) {
    const indices = packed ? unpack(bytes, header) : undefined;
    readIndexed(bytes, header, row, data, indices);
  } else if (bits === 24) {
    forRows(header, row, (at, to) => {
      for (let x = 0; x < width; x++, at += 3, to += 3)
        for (let c = 0; c < 3; c++) data[to + c] = bytes[at + 2 - c];
    });
  } else readMasked(bytes, header, row, data);
  return { width, height, data };
}

/** Calls `each` with the position of every stored row and of its row in the RGB output. */
function forRows(
  { width, height, topDown, offset }: Header,
  row: number,
  each: (at: number, to: number) => void,
): void {
  for (let y = 0; y < height; y++) each(offset + y * row, (topDown ? y : height - 1 - y) * width * 3);
}

function readIndexed(
  bytes: Uint8Array,
  header: Header,
  row: number,
  data: Uint8Array,
  indices?: Uint8Array,
): void {
  const { width, bits, palette } = header;
  const each = 8 / bits;
  const mask = 2 ** bits - 1;
  const source = indices ?? bytes;
  // Unpacked indices take one byte each and start with the first row.
  const layout = indices ? { ...header, offset: 0 } : header;
  forRows(layout, indices ? width : row, (at, to) => {
    for (let x = 0; x < width; x++, to += 3) {
      const index = indices
        ? source[at + x]
        : (source[at + Math.floor(x / each)] >> (8 - bits - bits * (x % each))) & mask;
      if (3 * index >= palette.length)
        throw new Error(`it has a pixel of colour ${index}, but a palette of ${palette.length / 3}`);
      for (let c = 0; c < 3; c++) data[to + c] = palette[3 * index + c];
    }
  });
}

function readMasked(bytes: Uint8Array, header: Header, row: number, data: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const wide = header.bits === 32;
  const channels = header.masks.map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask);
    return { shift, most: mask >>> shift };
  });
  const broken = channels.some(({ most }) => (most & (most + 1)) !== 0);
  if (broken) throw new Error('it has colour masks with gaps');
  forRows(header, row, (at, to) => {
    for (let x = 0; x < header.width; x++, at += wide ? 4 : 2, to += 3) {
      const pixel = wide ? view.getUint32(at, true) : view.getUint16(at, true);
      for (let c = 0; c < 3; c++) {
        const { shift, most } = channels[c];
        // Scaled to 0 to 255, rounded down as by Pillow.
        if (most > 0) data[to + c] = Math.floor(((((pixel >>> shift) & most) >>> 0) * 255) / most);
      }
    }
  });
}

/** The palette indices (height, width) of a run-length encoded BMP, one byte each; skipped pixels are colour 0. */
function unpack(bytes: Uint8Array, { width, height, bits, offset }: Header): Uint8Array {
  const indices = new Uint8Array(width * height);
  const nibble = (byte: number, i: number) => (bits === 8 ? byte : i % 2 === 0 ? byte >> 4 : byte & 15);
  let [at, x, y] = [offset, 0, 0];
  const put = (index: number) => {
    if (x < width && y < height) indices[y * width + x] = index; // pixels beyond the row are dropped
    x++;
  };
  for (;;) {
    if (y >= height) return indices; // writers may omit the end mark
    if (at + 2 > bytes.length) throw new Error(cutOffText(bytes.length, at + 2));
    const [count, value] = [bytes[at], bytes[at + 1]];
    at += 2;
    if (count > 0) for (let i = 0; i < count; i++) put(nibble(value, i));
    else if (value === 0) [x, y] = [0, y + 1];
    else if (value === 1) return indices;
    else {
      const length = value === 2 ? 2 : Math.ceil((value * bits) / 8);
      if (at + length > bytes.length) throw new Error(cutOffText(bytes.length, at + length));
      if (value === 2) {
        x += bytes[at];
        y += bytes[at + 1];
      } else for (let i = 0; i < value; i++) put(nibble(bytes[at + (bits === 8 ? i : i >> 1)], i));
      at += length + (length % 2);
    }
  }
}
