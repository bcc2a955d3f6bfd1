import { createHash } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize } from 'node:path';
import { DataError } from '../errors.js';

const IMAGE = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i;

export interface DatasetEntry {
  /** Relative to the data set's root. */
  readonly path: string;
  /** Index into `classNames`. */
  readonly class: number;
}

export interface Dataset {
  readonly root: string;
  readonly entries: readonly DatasetEntry[];
  /** The class folders' names in code point order; one empty name where there are no class folders. */
  readonly classNames: readonly string[];
}

/** Compares by code point, as Python sorts; JavaScript's own order is by UTF-16 unit. */
export function byCodePoint(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a.charCodeAt(i) !== b.charCodeAt(i)) {
      const high = i > 0 && a.charCodeAt(i - 1) >= 0xd800 && a.charCodeAt(i - 1) < 0xdc00;
      const start = high ? i - 1 : i; // not in the middle of a pair
      return a.codePointAt(start)! - b.codePointAt(start)!;
    }
  }
  return a.length - b.length;
}

/**
 * Finds the images of a folder, or those that a list file names (one path relative to the folder a line).
 * Each folder in it is a class, whose index is the rank of its name; images may lie
 * deeper inside. A folder of images without folders is one class with an empty name. Names that start with
 * a dot are passed over. The order is by class, then by path, or the list's.
 * @throws DataError where the folder or a listed file is missing, nothing is found, or images lie both
 *   beside and inside class folders
 */
export async function openDataset({ folder, list }: { folder: string; list?: string }): Promise<Dataset> {
  const { folders, images } = await readFolder(folder);
  const paths = list === undefined ? [...images] : await readList(folder, list);
  if (list === undefined) for (const name of folders) await walk(folder, name, paths);
  if (paths.length === 0) {
    const where = list === undefined ? `${folder} holds no images` : `${list} names no images`;
    throw new DataError(`${where}; give a folder of .jpg, .png or .webp files, or of class folders`);
  }

  const flat = paths.find((path) => !path.includes('/'));
  const nested = paths.find((path) => path.includes('/'));
  if (flat !== undefined && nested !== undefined) {
    throw new DataError(
      `${folder} has images both outside class folders (${flat}) and inside (${nested}); move the former into a class folder`,
    );
  }
  if (nested === undefined) {
    return { root: folder, entries: paths.map((path) => ({ path, class: 0 })), classNames: [''] };
  }
  // All folders count, used by the list or not, so that a class keeps its index.
  const ranks = new Map(folders.map((name, rank) => [name, rank]));
  const entries = paths.map((path) => ({ path, class: ranks.get(path.slice(0, path.indexOf('/')))! }));
  return { root: folder, entries, classNames: folders };
}

/**
 * Tells one data set from another: its number of images, and a hash of their paths and classes in order, wherever its
 * folder lies. What is in the files is not looked at.
 */
export function datasetIdentity({ entries }: Dataset): string {
  const hash = createHash('sha256');
  for (const { path, class: index } of entries) hash.update(`${index} ${path}\n`);
  return `${entries.length} images, SHA-256 of their list ${hash.digest('hex').slice(0, 16)}`;
}

/** The names of a folder's folders and images, without hidden ones, links followed, sorted. */
async function readFolder(folder: string): Promise<{ folders: string[]; images: string[] }> {
  let children: Dirent[];
  try {
    children = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason =
      code === 'ENOENT' ? 'no such folder' : code === 'ENOTDIR' ? 'it is a file, not a folder' : code;
    throw new DataError(`cannot read the image folder ${folder}: ${reason}; check the path`, {
      cause: error,
    });
  }
  const folders: string[] = [];
  const images: string[] = [];
  for (const child of children) {
    if (child.name.startsWith('.')) continue;
    // A link to nothing is kept by its name: reading it fails then, and says so.
    const target = child.isSymbolicLink()
      ? await stat(join(folder, child.name)).catch(() => undefined)
      : child;
    if (target?.isDirectory()) folders.push(child.name);
    else if (IMAGE.test(child.name)) images.push(child.name);
  }
  return { folders: folders.sort(byCodePoint), images: images.sort(byCodePoint) };
}

/** Adds the paths, relative to `root`, of all images under `folder`. */
async function walk(root: string, folder: string, paths: string[]): Promise<void> {
  const { folders, images } = await readFolder(join(root, folder));
  for (const name of images) paths.push(`${folder}/${name}`);
  for (const name of folders) await walk(root, `${folder}/${name}`, paths);
}

async function readList(folder: string, list: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(list, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new DataError(`cannot read the image list ${list}: ${code}; check the path`, { cause: error });
  }
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  const known = new Map<string, Set<string>>();
  const absent: string[] = [];
  const paths = lines.map((line) => {
    const path = normalize(line).replaceAll('\\', '/');
    if (isAbsolute(path) || path.startsWith('.')) {
      throw new DataError(
        `${list} names ${line}; paths must be relative to ${folder}, inside it and not hidden`,
      );
    }
    return path;
  });
  // One reading of each folder costs less than asking for each file.
  for (const path of paths) {
    const parent = dirname(path);
    if (!known.has(parent)) {
      known.set(parent, new Set(await readdir(join(folder, parent)).catch(() => [])));
    }
    if (!known.get(parent)!.has(basename(path))) absent.push(path);
  }
  if (absent.length > 0) {
    const first = absent.slice(0, 3).join(', ');
    throw new DataError(
      `${list} names ${absent.length} files that are not in ${folder} (${first}${absent.length > 3 ? ', …' : ''}); correct the list or the folder`,
    );
  }
  return paths;
}
