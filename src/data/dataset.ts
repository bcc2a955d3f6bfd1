import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { DataError } from '../errors.js';
import { openImageFolder } from './image-folder.js';
import { type ImageSet, parseList } from './image-set.js';
import { findShards, openShards } from './tar-shards.js';

/**
 * Finds the images of a folder or of tar files (`photos.tar`, `train-{0000..0099}.tar`, `shards/*.tar`, and with a folder
 * inside, `photos.tar/train`), or those of them that a list file names, one path a line. Each folder in it is a class,
 * whose index is the rank of its name; images may lie deeper inside. A folder of images without folders is one class with
 * an empty name. In tar files, members `.cls` may give class numbers instead. Names that start with a dot are passed over.
 * The order depends on names alone: by class, then by path, or the list's; with `.cls`, that of the tar files.
 * @throws DataError where the folder, a tar file or a listed file is missing, a tar file is damaged, nothing is found, or
 *   images lie both beside and inside class folders
 */
export async function openDataset({ folder, list }: { folder: string; list?: string }): Promise<ImageSet> {
  const shards = await findShards(folder);
  const listed = list === undefined ? undefined : { paths: await readList(folder, list), list };
  return shards ? openShards(folder, shards, listed) : openImageFolder(folder, listed);
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
