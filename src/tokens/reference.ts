import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { byCodePoint } from '../data/image-set.js';
import { leftOutByName } from '../data/left-out.js';
import { DataError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import type { TokenCache } from './codes.js';

/** Codes are kept once read where all of them fit. */
const MEMORY_BYTES = 2 ** 30;

/** The codes (crops, T) of one file of the reference, row-major. */
async function readCodes(path: string): Promise<{ shape: readonly number[]; codes: Uint32Array }> {
  const npz = await openNpz(path);
  try {
    const { dtype, shape, data } = await npz.read('codes');
    if (dtype !== 'i8' || shape.length !== 2) {
      throw new DataError(
        `codes in ${path} are ${dtype} (${shape.join(', ')}); the layout has int64 (crops, T)`,
      );
    }
    const wrong = (data as BigInt64Array).find((code) => code < 0 || code > 0x7fffffff);
    if (wrong !== undefined) throw new DataError(`codes in ${path} hold ${wrong}; write the file again`);
    return { shape, codes: Uint32Array.from(data as BigInt64Array, Number) };
  } finally {
    npz.close();
  }
}

/**
 * Opens codes in the reference implementation's layout: class folders with one `.npz` an image, in which
 * `codes` is int64 (crops, T). A class's index is the rank of its folder. All files have the first one's
 * shape; the others are read when asked for.
 * @throws DataError where the folder is missing or holds no such files
 */
export async function openReferenceCodes(folder: string): Promise<TokenCache> {
  const classNames: string[] = [];
  const paths: string[] = [];
  const classes: number[] = [];
  try {
    for (const child of await readdir(folder, { withFileTypes: true })) {
      if (child.isDirectory() && leftOutByName(child.name, true) === undefined) classNames.push(child.name);
    }
    classNames.sort(byCodePoint);
    for (const [index, name] of classNames.entries()) {
      const files = (await readdir(join(folder, name))).filter((file) => file.endsWith('.npz'));
      for (const file of files.sort(byCodePoint)) {
        paths.push(join(folder, name, file));
        classes.push(index);
      }
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new DataError(`cannot read the folder of codes ${folder}: ${code}; check the path`, {
      cause: error,
    });
  }
  if (paths.length === 0) {
    throw new DataError(`${folder} has no .npz files in class folders; give a token cache or such a folder`);
  }

  const [crops, tokens] = (await readCodes(paths[0])).shape;
  const fits = paths.length * crops * tokens * Uint32Array.BYTES_PER_ELEMENT <= MEMORY_BYTES;
  const kept: Uint32Array[] = [];

  async function codesOf(image: number): Promise<Uint32Array> {
    if (kept[image]) return kept[image];
    const { shape, codes } = await readCodes(paths[image]);
    if (shape[0] !== crops || shape[1] !== tokens) {
      throw new DataError(
        `codes in ${paths[image]} are (${shape.join(', ')}), those of ${paths[0]} (${crops}, ${tokens}); make them alike`,
      );
    }
    if (fits) kept[image] = codes;
    return codes;
  }

  return {
    path: folder,
    images: paths.length,
    crops,
    tokens,
    classes: Int32Array.from(classes),
    classNames,
    async read(image, crop, into, offset) {
      const codes = await codesOf(image);
      into.set(codes.subarray(crop * tokens, (crop + 1) * tokens), offset);
    },
    async close() {},
  };
}
