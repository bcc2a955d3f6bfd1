import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { DataError } from '../errors.js';
import type { RunPicture } from './read-run.js';

/** A picture embedded in a page. */
export interface PagePicture {
  step: number;
  /** A data URL. */
  source: string;
  width: number;
  height: number;
}

/** Most pictures of one kind and run, spread evenly from the first to the last. */
const SHOWN = 8;
/** Wider pictures are scaled down to keep the page small. */
const WIDEST = 1100;
const QUALITY = 82;

/** At most `count` items of a list: the first, the last, and others spread evenly in between. */
export function spread<T>(list: readonly T[], count: number): T[] {
  if (list.length <= count) return [...list];
  return Array.from({ length: count }, (_, i) => list[Math.round((i * (list.length - 1)) / (count - 1))]);
}

/** Reads at most `SHOWN` pictures of one kind, as WebP. @throws DataError for a damaged one */
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
