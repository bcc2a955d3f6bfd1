import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { DataError } from '../errors.js';
import type { RunPicture } from './read-run.js';

/** A picture as a page holds it. */
export interface PagePicture {
  step: number;
  /** A data URL. */
  source: string;
  width: number;
  height: number;
}

/** So many pictures of one kind are shown of each run, spread evenly from the first to the last. */
const SHOWN = 8;
/** Wider pictures are made smaller, so that a page stays small. */
const WIDEST = 1100;
const QUALITY = 82;

/** At most `count` of a list: the first, the last, and others spread evenly between. */
export function spread<T>(list: readonly T[], count: number): T[] {
  if (list.length <= count) return [...list];
  return Array.from({ length: count }, (_, i) => list[Math.round((i * (list.length - 1)) / (count - 1))]);
}

/** Reads pictures of one kind for a page, `SHOWN` at most, as WebP. @throws DataError for one that is damaged */
export async function pagePictures(pictures: readonly RunPicture[]): Promise<PagePicture[]> {
  return Promise.all(
    spread(pictures, SHOWN).map(async ({ step, path }) => {
      try {
        const { data, info } = await sharp(await readFile(path))
          .resize({ width: WIDEST, withoutEnlargement: true })
          .webp({ quality: QUALITY })
          .toBuffer({ resolveWithObject: true });
        const source = `data:image/webp;base64,${data.toString('base64')}`;
        return { step, source, width: info.width, height: info.height };
      } catch (error) {
        throw new DataError(`${path} is not a readable picture: ${(error as Error).message}`, {
          cause: error,
        });
      }
    }),
  );
}
