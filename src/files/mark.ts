import { lstat, open, stat } from 'node:fs/promises';
import { OutputError } from '../errors.js';

/**
 * Every file that is written under a name the user chose contains this: in the EXIF data of a PNG, the metadata of a
 * safetensors file, the comment of a zip (.npz, .pth), the head of an HTML page, the JSON of a result. A file without it is
 * never replaced.
 */
export const MARK = 'written by alitok';

/** The mark is within this many bytes of the file's beginning or end. */
const WITHIN = 2 ** 16;

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
 * Checks that a file may be written at a path: nothing exists there, or a file that this program wrote.
 * @throws OutputError if anything else is there
 */
export async function refuseForeign(path: string): Promise<void> {
  const there = await lstat(path).catch(() => undefined);
  if (!there) return;
  const info = await stat(path).catch(() => undefined);
  if (!info)
    throw new OutputError(`cannot write ${path}: it is a broken link; choose another path, or remove it`);
  if (info.isDirectory())
    throw new OutputError(
      `cannot write ${path}: a folder of that name exists; remove it or choose another path`,
    );
  if (!info.isFile() || !(await isMarked(path).catch(() => false)))
    throw new OutputError(
      `${path} already exists and was not written by alitok; choose another path, or remove it`,
    );
}

/** Options of yazl's `end` that put the mark into a zip. */
export const MARKED_ZIP = { forceZip64Format: false, comment: MARK };
