import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { byCodePoint } from '../data/image-set.js';
import { leftOutByName } from '../data/left-out.js';
import { DataError } from '../errors.js';
import { openNpz } from '../formats/npz.js';
import type { TokenCache } from './codes.js';

/** Codes are kept in memory if all of them fit into this. */
const MEMORY_BYTES = 2 ** 30;

/** Reads the codes (crops, T) of one file, row-major. */
async function readCodes(path: string): Promise<{ shape: readonly number[]; codes: Uint32Array }> {
  const npz = await openNpz(path);
  try {
    const { dtype, shape, data } = await npz.read('codes');
    if (dtype !== 'i8' || shape.length !== 2) {
      throw new DataError(
        `codes in ${path} are ${dtype} (${shape.join(', ')}); they must be int64 (crops, T)`,
      );
    }
    const wrong = (data as BigInt64Array).find((code) => code < 0 || code > 0x7fffffff);
    if (wrong !== undefined)
      throw new DataError(`codes in ${path} contain ${wrong}, which is not a code; make the file again`);
    return { shape, codes: Uint32Array.from(data as BigInt64Array, Number) };
  } finally {
    npz.close();
  }
}

/**
 * Opens codes in the layout of the reference implementation: class folders with one `.npz` per image, in which `codes` is
 * int64 (crops, T). The index of a class is the rank of its folder. All files must have the shape of the first one; they
 * are read on demand.
 * @throws DataError if the folder is missing or has no such files
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
        `codes in ${paths[image]} have the shape (${shape.join(', ')}), those in ${paths[0]} (${crops}, ${tokens}); all files need the same shape`,
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
