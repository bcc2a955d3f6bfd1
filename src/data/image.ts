import { readFile } from 'node:fs/promises';
import sharp, { type Sharp } from 'sharp';
import { DataError } from '../errors.js';
import { bytesOf } from '../formats/bytes.js';
import { toPng } from './png.js';

/** An RGB image: `data` is (height, width, 3), 8 bits a channel. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/**
 * Decodes an image file, or the `bytes` that `path` names, into RGB as Pillow's `convert('RGB')` does, which the reference reads with: alpha
 * is dropped, not blended; 16 bits are cut to the upper 8; of an animation the first picture is taken;
 * colour profiles and the EXIF orientation are not applied.
 * @throws DataError where the file is missing, truncated or not an image
 */
export async function decodeImage(path: string, bytes?: Promise<Uint8Array>): Promise<Image> {
  try {
    // Not by path: libvips takes a part of some names for options, and keeps files open in its cache.
    const source = sharp(await (bytes ?? readFile(path)), { failOn: 'truncated', ignoreIcc: true });
    const { space } = await source.metadata();
    if (space === 'cmyk') return await decodeCmyk(source);
    const { data, info } = await source.removeAlpha().toColourspace('srgb').raw().toBuffer(RESOLVE);
    return { width: info.width, height: info.height, data: bytesOf(data) };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : message.replace(/\s*\n\s*/g, '; ').trim();
    throw new DataError(`cannot read the image ${path}: ${reason}; replace or remove it`, { cause: error });
  }
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

/** An RGB image as the bytes of a PNG file. */
export function encodePng({ width, height, data }: Image): Promise<Buffer> {
  return toPng(sharp(data, { raw: { width, height, channels: 3 } }));
}
