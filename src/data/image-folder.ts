import type { Dirent } from 'node:fs';
import { open, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { DataError } from '../errors.js';
import { HEAD_BYTES } from '../formats/image-kind.js';
import { absentError, byCodePoint, classesByFolder, type ImageSet, PackedTexts } from './image-set.js';
import { isImage, LeftOut, leftOutByName } from './left-out.js';

/**
 * Finds the images of a folder, or the ones in `listed`. The order is by class, then by path with files before folders, or
 * that of the list. Links are followed, except links to a parent folder.
 * @throws DataError if the folder or a listed file is missing, there are no images, or images lie both inside and outside
 *   class folders
 */
export async function openImageFolder(
  folder: string,
  listed?: { paths: string[]; list: string },
): Promise<Omit<ImageSet, 'maxPixels'>> {
  const walk = new Walk(folder);
  const { folders, images } = await walk.readFolder('', await walk.start());
  const paths = listed?.paths ?? images;
  if (listed) await checkPresent(folder, listed);
  else for (const inner of folders) await walk.into(inner, paths);
  // With a list, files that it does not name are not reported as left out.
  const leftOut = listed ? new LeftOut() : walk.leftOut;
  const classNames = folders.map(({ path }) => path);
  const classes = classesByFolder(folder, paths, classNames, leftOut);
  const names = new PackedTexts(paths);
  const location = (index: number) => join(folder, names.at(index));
  return {
    root: folder,
    size: paths.length,
    ...classes,
    ...(listed && { emptyClasses: [] }),
    leftOut,
    path: (index) => names.at(index),
    location,
    read: (index) => readFile(location(index)),
  };
}

/** A folder during the walk. */
interface Folder {
  /** Relative to the root. */
  readonly path: string;
  /** Real paths: last its own, before it those of the folders that contain the links followed so far. */
  readonly places: readonly string[];
}

/** Whether `place` is `folder` or lies inside it; both are real paths. */
const isIn = (place: string, folder: string) =>
  place === folder || place.startsWith(folder.endsWith(sep) ? folder : folder + sep);

/** A walk through the folders below `root`, which counts the files that it leaves out. */
class Walk {
  readonly leftOut = new LeftOut();

  constructor(private readonly root: string) {}

  async start(): Promise<string[]> {
    return [await realpath(this.root).catch(() => this.root)];
  }

  /** Adds the paths of all images under a folder, relative to the root. */
  async into(folder: Folder, paths: string[]): Promise<void> {
    const { folders, images } = await this.readFolder(folder.path, folder.places);
    for (const path of images) paths.push(path);
    for (const inner of folders) await this.into(inner, paths);
  }

  /** The subfolders and images of a folder, sorted by name. */
  async readFolder(
    path: string,
    places: readonly string[],
  ): Promise<{ folders: Folder[]; images: string[] }> {
    const here = join(this.root, path);
    const folders: Folder[] = [];
    const images: string[] = [];
    for (const child of await list(here)) {
      const { name } = child;
      const location = join(here, name);
      const inner = path === '' ? name : `${path}/${name}`;
      const isLink = child.isSymbolicLink();
      const target = isLink ? await stat(location).catch(() => undefined) : child;
      const isFolder = target?.isDirectory() ?? false;
      const reason = leftOutByName(name, isFolder);
      if (reason !== undefined) this.leftOut.add(reason);
      else if (isFolder) {
        const place = isLink ? await realpath(location) : join(places.at(-1)!, name);
        // Following a link to a parent folder would never end.
        if (isLink && places.some((one) => isIn(one, place))) this.leftOut.add('linksBack');
        else
          folders.push({
            path: inner,
            places: isLink ? [...places, place] : [...places.slice(0, -1), place],
          });
      } else if (target !== undefined && !target.isFile()) this.leftOut.add('others');
      // A broken link with an image's name is kept: reading it fails and is reported.
      else if (isImage(name)) images.push(inner);
      else await this.leftOut.addFile(name, () => headOf(location));
    }
    folders.sort((a, b) => byCodePoint(a.path, b.path));
    return { folders, images: images.sort(byCodePoint) };
  }
}

/** Lists a folder. @throws DataError if it cannot be read */
async function list(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
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
}

/** The first bytes of a file; none if it cannot be read. */
async function headOf(path: string): Promise<Uint8Array> {
  const head = Buffer.alloc(HEAD_BYTES);
  const handle = await open(path, 'r').catch(() => undefined);
  try {
    const { bytesRead } = (await handle?.read(head, 0, HEAD_BYTES, 0)) ?? { bytesRead: 0 };
    return head.subarray(0, bytesRead);
  } catch {
    return new Uint8Array();
  } finally {
    await handle?.close();
  }
}

async function checkPresent(
  folder: string,
  { paths, list }: { paths: string[]; list: string },
): Promise<void> {
  const known = new Map<string, Set<string>>();
  const absent: string[] = [];
  // Listing each folder once is faster than checking each file.
  for (const path of paths) {
    const parent = dirname(path);
    if (!known.has(parent)) {
      known.set(parent, new Set(await readdir(join(folder, parent)).catch(() => [])));
    }
    if (!known.get(parent)!.has(basename(path))) absent.push(path);
  }
  if (absent.length > 0) throw absentError(list, folder, absent);
}
