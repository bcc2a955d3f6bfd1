import { lstat, open, stat } from 'node:fs/promises';
import { OutputError } from '../errors.js';

/**
 * Stands in every file that is written under a name of the user's choice: in a PNG's EXIF data, a safetensors file's
 * metadata, the comment of a zip (.npz, .pth), a page's head, a result's JSON. What lacks it is never replaced.
 */
export const MARK = 'written by alitok';

/** The mark is in the first or the last so many bytes. */
const WITHIN = 2 ** 16;

/** Whether a file has the mark. */
async function isMarked(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    for (const position of [0, Math.max(0, size - WITHIN)]) {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(WITHIN), 0, WITHIN, position);
      if (buffer.subarray(0, bytesRead).includes(MARK)) return true;
    }
    return false;
  } finally {
    await file.close();
  }
}

/**
 * Sees to it that a file may be written at a path: nothing is there, or a file that was written by this program.
 * @throws OutputError where something else is there
 */
export async function refuseForeign(path: string): Promise<void> {
  const there = await lstat(path).catch(() => undefined);
  if (!there) return;
  const info = await stat(path).catch(() => undefined);
  if (!info)
    throw new OutputError(`cannot write ${path}: it is a link to nothing; choose another path, or remove it`);
  if (info.isDirectory())
    throw new OutputError(
      `cannot write ${path}: a folder of that name exists; remove it or choose another path`,
    );
  if (!info.isFile() || !(await isMarked(path).catch(() => false)))
    throw new OutputError(
      `${path} is there already and was not written by alitok; choose another path, or remove it`,
    );
}

/** The mark in a zip that yazl writes. */
export const MARKED_ZIP = { forceZip64Format: false, comment: MARK };
