import type { Sharp } from 'sharp';
import { MARK } from '../../files/mark.js';

/** A picture as the bytes of a PNG file that has this program's mark. */
export const toPng = (picture: Sharp): Promise<Buffer> =>
  picture
    .withExif({ IFD0: { Software: MARK } })
    .png()
    .toBuffer();
