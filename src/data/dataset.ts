import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { DataError, option } from '../errors.js';
import { someOf } from './found.js';
import { openImageFolder } from './image-folder.js';
import { type ImageSet, parseList } from './image-set.js';
import { MAX_PIXELS } from './images/decode.js';
import { findShards, openShards } from './tar-shards.js';

export interface DatasetOptions {
  /** A folder of images, or tar files: `photos.tar`, `train-{0000..0099}.tar`, `shards/*.tar`, `photos.tar/train`. */
  folder: string;
  /** A file that names the images to take, one path relative to the folder a line. */
  list?: string;
  /** Pixels that an image may have at most; those with more count as unreadable. */
  maxPixels?: number;
  /** Whether a class folder without an image is an error, for data that classes are learned from. */
  refuseEmptyClasses?: boolean;
}

/**
 * Finds the images of a folder or of tar files, or those of them that a list file names. Each folder in it is a class,
 * whose index is the rank of its name; images may lie deeper inside. A folder of images without folders is one class with
 * an empty name. In tar files, members `.cls` may give class numbers instead. Names that start with a dot, the folders and
 * files of operating systems, links to a folder that they are in, and files that are not images are left out and counted.
 * The order depends on names alone: by class, then by path, or the list's; with `.cls`, that of the tar files.
 * @throws DataError where the folder, a tar file or a listed file is missing, a tar file is damaged, nothing is found,
 *   images lie both beside and inside class folders, or a class folder has none and is to have some
 */
export async function openDataset({
  folder,
  list,
  maxPixels = MAX_PIXELS,
  refuseEmptyClasses = false,
}: DatasetOptions): Promise<ImageSet> {
  const shards = await findShards(folder);
  const listed = list === undefined ? undefined : { paths: await readList(folder, list), list };
  const found = await (shards ? openShards(folder, shards, listed) : openImageFolder(folder, listed));
  const set = { ...found, maxPixels };
  if (refuseEmptyClasses) checkClasses(set);
  return set;
}

/** A class that nothing is learned of is mostly a mistake with folders, and its number moves those of others. */
function checkClasses({ root, emptyClasses, leftOut }: ImageSet): void {
  const { length } = emptyClasses;
  if (length === 0) return;
  const folders = length === 1 ? '1 class folder' : `${length} class folders`;
  throw new DataError(
    `${root} has ${folders} without an image (${someOf(emptyClasses)})${leftOut.text === '' ? '' : `, and was left out: ${leftOut.text}`}; put images in or remove ${length === 1 ? 'it' : 'them'}, or keep a class without images with ${option('allowEmptyClasses')}`,
  );
}

/**
 * Tells one data set from another: its number of images, and a hash of their paths and classes in order, wherever it
 * lies. What is in the files is not looked at.
 */
export function datasetIdentity(set: ImageSet): string {
  const hash = createHash('sha256');
  for (let i = 0; i < set.size; i++) hash.update(`${set.classes[i]} ${set.path(i)}\n`);
  return `${set.size} images, SHA-256 of their list ${hash.digest('hex').slice(0, 16)}`;
}

async function readList(folder: string, list: string): Promise<string[]> {
  try {
    return parseList(await readFile(list, 'utf8'), list, folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof DataError) throw error;
    throw new DataError(`cannot read the image list ${list}: ${code}; check the path`, { cause: error });
  }
}
