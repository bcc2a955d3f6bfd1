import sharp, { type Sharp } from 'sharp';
import { MARK } from '../../files/mark.js';
import type { Image } from './decode.js';

/** A picture as the bytes of a PNG file that carries alitok's mark. */
export const toPng = (picture: Sharp): Promise<Buffer> =>
  picture
    .withExif({ IFD0: { Software: MARK } })
    .png()
    .toBuffer();

/** An RGB image as the bytes of a PNG file that carries alitok's mark. */
export function encodePng({ width, height, data }: Image): Promise<Buffer> {
  return toPng(sharp(data, { raw: { width, height, channels: 3 } }));
}
