import { readFile } from 'node:fs/promises';
import sharp, { type Sharp } from 'sharp';
import { DataError, option } from '../../errors.js';
import { bytesOf } from '../../files/bytes.js';
import { readBmp } from '../../formats/bmp.js';
import { cutOff } from '../../formats/image-end.js';
import { imageKind, isRead } from '../../formats/image-kind.js';
import { readPnm } from '../../formats/pnm.js';

/** An RGB image: `data` is (height, width, 3), 8 bits a channel. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** Pixels an image has at most, where no other limit is given: as many as sharp and libvips take by themselves. */
export const MAX_PIXELS = 16_383 ** 2;

const REPLACE = 'replace or remove it';

/** Why a file is not read, and what to do about it. */
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
 * Decodes an image file, or the `bytes` that `path` names, into RGB as Pillow's `convert('RGB')` does, which the reference reads with: alpha
 * is dropped, not blended; 16 bits are cut to the upper 8; of an animation the first picture is taken;
 * colour profiles and the EXIF orientation are not applied. What kind it is goes by its first bytes, not by its name.
 * @throws DataError where the file is missing, cut off, not an image or one of a kind that is not read, or has more than
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

/** Where libvips is to stop: it would fill the rows that a TIFF lacks with black, as no mere end of the file. */
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
    throw new Refusal(`it is of the kind ${kind}, which is not read`, 'convert it, for instance to .png');
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
    // Not by path: libvips takes a part of some names for options, and keeps files open in its cache.
    // The limit is checked here, where its error can say the size.
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

/** What a file that is no image begins with. */
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

/** What libvips says, in one line: each of its lines once, without those on how it looked for more bytes. */
function plainMessage({ message }: Error): string {
  const lines = message.split(/\s*\n\s*/).filter((line) => line !== '' && !/bad seek to \d+$/.test(line));
  return [...new Set(lines)].join(', ').replace(/:$/, '');
}

const RESOLVE = { resolveWithObject: true } as const;

/** Without a profile, each ink takes its share of what black leaves: rounding as Pillow's. */
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
