import type { Dirent } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DataError } from '../errors.js';
import {
  absentError,
  byCodePoint,
  classesByFolder,
  type ImageSet,
  isImage,
  PackedTexts,
} from './image-set.js';

/**
 * The images of a folder, or those of `listed`. The order is by class, then by path with files before folders, or the
 * list's.
 * @throws DataError where the folder or a listed file is missing, nothing is found, or images lie both beside and inside
 *   class folders
 */
export async function openImageFolder(
  folder: string,
  listed?: { paths: string[]; list: string },
): Promise<ImageSet> {
  const { folders, images } = await readFolder(folder);
  const paths = listed?.paths ?? [...images];
  if (listed) await checkPresent(folder, listed);
  else for (const name of folders) await walk(folder, name, paths);
  const classes = classesByFolder(folder, paths, folders);
  const names = new PackedTexts(paths);
  const location = (index: number) => join(folder, names.at(index));
  return {
    root: folder,
    size: paths.length,
    ...classes,
    path: (index) => names.at(index),
    location,
    read: (index) => readFile(location(index)),
  };
}

/** The names of a folder's folders and images, without hidden ones, links followed, sorted. */
async function readFolder(folder: string): Promise<{ folders: string[]; images: string[] }> {
  let children: Dirent[];
  try {
    children = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason =
      code === 'ENOENT'
        ? 'no such folder'
        : code === 'ENOTDIR'
          ? 'it is a file, neither a folder nor a .tar'
          : code;
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
    else if (isImage(child.name)) images.push(child.name);
  }
  return { folders: folders.sort(byCodePoint), images: images.sort(byCodePoint) };
}

/** Adds the paths, relative to `root`, of all images under `folder`. */
async function walk(root: string, folder: string, paths: string[]): Promise<void> {
  const { folders, images } = await readFolder(join(root, folder));
  for (const name of images) paths.push(`${folder}/${name}`);
  for (const name of folders) await walk(root, `${folder}/${name}`, paths);
}

async function checkPresent(
  folder: string,
  { paths, list }: { paths: string[]; list: string },
): Promise<void> {
  const known = new Map<string, Set<string>>();
  const absent: string[] = [];
  // One reading of each folder costs less than asking for each file.
  for (const path of paths) {
    const parent = dirname(path);
    if (!known.has(parent)) {
      known.set(parent, new Set(await readdir(join(folder, parent)).catch(() => [])));
    }
    if (!known.get(parent)!.has(basename(path))) absent.push(path);
  }
  if (absent.length > 0) throw absentError(list, folder, absent);
}
