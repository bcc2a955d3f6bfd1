import { readFile } from 'node:fs/promises';
import sharp, { type Sharp } from 'sharp';
import { DataError, option } from '../../errors.js';
import { bytesOf } from '../../files/bytes.js';
import { readBmp } from '../../formats/bmp.js';
import { cutOff } from '../../formats/image-end.js';
import { imageKind, isRead } from '../../formats/image-kind.js';
import { readPnm } from '../../formats/pnm.js';

/** An RGB image: `data` is uint8 (height, width, 3). */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Default maximum number of pixels of an image: that of sharp and libvips. */
export const MAX_PIXELS = 16_383 ** 2;

const REPLACE = 'replace or remove it';

/** Why a file cannot be read, and the remedy. */
class Refusal extends Error {
  constructor(
    reason: string,
    readonly remedy = REPLACE,
  ) {
    super(reason);
  }
}

const count = (n: number) => n.toLocaleString('en-US');

/**
 * Decodes an image file, or its `bytes` if given, into RGB. The result is that of Pillow's `convert('RGB')`, which the
 * reference implementation uses: alpha is dropped, not blended; of 16 bits the upper 8 are kept; of an animation the first
 * frame; colour profiles and the EXIF orientation are ignored. The format is recognized by the first bytes, not by the name.
 * @throws DataError if the file is missing, truncated, not an image or of an unsupported format, or has more than
 *   `maxPixels` pixels
 */
export async function decodeImage(
  path: string,
  bytes?: Promise<Uint8Array>,
  maxPixels = MAX_PIXELS,
): Promise<Image> {
  try {
    return await decodeBytes(await (bytes ?? readFile(path)), maxPixels);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : message;
    const remedy = error instanceof Refusal ? error.remedy : REPLACE;
    throw new DataError(`cannot read the image ${path}: ${reason}; ${remedy}`, { cause: error });
  }
}

/** The errors at which libvips stops. For a TIFF with missing rows it must be 'error': otherwise they would be black. */
const FAIL_ON = {
  JPEG: 'truncated',
  PNG: 'truncated',
  WebP: 'truncated',
  GIF: 'truncated',
  TIFF: 'error',
  AVIF: 'truncated',
} as const;

async function decodeBytes(bytes: Uint8Array, maxPixels: number): Promise<Image> {
  const kind = imageKind(bytes);
  if (kind === undefined) throw new Refusal(noImageText(bytes));
  if (!isRead(kind))
    throw new Refusal(`its format, ${kind}, is not supported`, 'convert it, for instance to .png');
  const checkSize = (width: number, height: number) => {
    if (width * height > maxPixels)
      throw new Refusal(
        `it has ${width} × ${height} = ${count(width * height)} pixels, over the limit of ${count(maxPixels)}`,
        `scale it down, or raise the limit with ${option('maxPixels')}`,
      );
  };
  if (kind === 'BMP') return readBmp(bytes, checkSize);
  if (kind === 'PNM') return readPnm(bytes, checkSize);
  try {
    // Not by path: libvips reads a part of some names as options, and keeps files open in its cache.
    // The limit is checked here, so that the error can give the size.
    const source = sharp(bytes, { failOn: FAIL_ON[kind], ignoreIcc: true, limitInputPixels: false });
    const { space, width, height, pageHeight } = await source.metadata();
    checkSize(width, pageHeight ?? height);
    if (space === 'cmyk') return await decodeCmyk(source);
    const { data, info } = await source.removeAlpha().toColourspace('srgb').raw().toBuffer(RESOLVE);
    return { width: info.width, height: info.height, data: bytesOf(data) };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(cutOff(kind, bytes) ?? `it cannot be decoded: ${plainMessage(error as Error)}`);
  }
}

/** Describes the content of a file that is not an image. */
function noImageText(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'it is empty';
  if (bytes.every((byte) => byte === 0)) return `all of its ${count(bytes.length)} bytes are zero`;
  const head = Buffer.from(bytes.subarray(0, 24));
  const text = head.toString('latin1').trimEnd();
  const shown = /^[\t\r\n -~]+$/.test(text)
    ? text.replace(/\s+/g, ' ')
    : head
        .subarray(0, 8)
        .toString('hex')
        .replace(/..(?=.)/g, '$& ');
  return `it is not an image: it begins with ${shown}`;
}

/** The message of libvips in one line, without repeated lines and those about seeking. */
function plainMessage({ message }: Error): string {
  const lines = message.split(/\s*\n\s*/).filter((line) => line !== '' && !/bad seek to \d+$/.test(line));
  return [...new Set(lines)].join(', ').replace(/:$/, '');
}

const RESOLVE = { resolveWithObject: true } as const;

/** Converts CMYK without a colour profile, with the rounding of Pillow. */
async function decodeCmyk(source: Sharp): Promise<Image> {
  const { data: inks, info } = await source
    .pipelineColourspace('cmyk')
    .toColourspace('cmyk')
    .raw()
    .toBuffer(RESOLVE);
  const data = new Uint8Array(info.width * info.height * 3);
  for (let from = 0, to = 0; to < data.length; from += info.channels, to += 3) {
    const light = 255 - inks[from + 3];
    for (let c = 0; c < 3; c++) data[to + c] = light - Math.round((inks[from + c] * light) / 255);
  }
  return { width: info.width, height: info.height, data };
}
