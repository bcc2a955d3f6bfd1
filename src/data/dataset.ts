import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { DataError, option } from '../errors.js';
import { counted } from '../text.js';
import { openImageFolder } from './image-folder.js';
import { type ImageSet, parseList } from './image-set.js';
import { MAX_PIXELS } from './images/decode.js';
import { findShards, openShards } from './tar-shards.js';

/** Maximum number of names in a message. */
const MAX_NAMES = 3;

/** The first few of many names. */
const someOf = (names: readonly string[]): string =>
  names.slice(0, MAX_NAMES).join(', ') + (names.length > MAX_NAMES ? ', …' : '');

export interface DatasetOptions {
  /** A folder of images, or tar files: `photos.tar`, `train-{0000..0099}.tar`, `shards/*.tar`, `photos.tar/train`. */
  folder: string;
  /** A file with the paths of the images to use, relative to the folder, one per line. */
  list?: string;
  /** Maximum number of pixels of an image; larger images count as unreadable. */
  maxPixels?: number;
  /** Whether class folders without images are an error: set for data from which classes are learned. */
  refuseEmptyClasses?: boolean;
}

/**
 * Finds the images of a folder or of tar files, or the ones that a list file names. Each subfolder is a class, whose
 * index is the rank of its name; its images may be nested deeper. A folder with images but no subfolders is one class with
 * an empty name. In tar files, `.cls` members may give class numbers instead. Hidden files and folders, those of operating
 * systems, links to a parent folder, and files that are not images are left out and counted. The order depends on names
 * alone: by class, then by path; or that of the list; or, with `.cls` members, that of the tar files.
 * @throws DataError if the folder, a tar file or a listed file is missing, a tar file is damaged, there are no images,
 *   images lie both inside and outside class folders, or a class folder is empty and `refuseEmptyClasses` is set
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

/** Refuses class folders without images: mostly a mistake, and they shift the numbers of other classes. */
function checkClasses({ root, emptyClasses, leftOut }: ImageSet): void {
  const { length } = emptyClasses;
  if (length === 0) return;
  const folders = length === 1 ? '1 class folder' : `${length} class folders`;
  throw new DataError(
    `${root} has ${folders} without an image (${someOf(emptyClasses)})${leftOut.text === '' ? '' : ` (left out: ${leftOut.text})`}; put images in or remove ${length === 1 ? 'it' : 'them'}, or keep a class without images with ${option('allowEmptyClasses')}`,
  );
}

/**
 * Identifies a data set by its number of images and a hash of their paths and classes in order. It depends neither on
 * where the data set is nor on the contents of the files.
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

/** The parts of a job that `reportFound` needs. */
interface Listener {
  readonly reporter: { info(message: string): void; warn(message: string): void };
  /** The processes that share the work; only rank 0 reports. */
  readonly group?: { readonly rank: number };
}

/** What a data set holds: `photos/train: 8 images in 2 classes (left out: 3 system folders, 2 hidden files)`. */
export function foundText({ root, size, classNames, emptyClasses, leftOut }: ImageSet): string {
  const flat = classNames.length === 1 && classNames[0] === '';
  const classes = flat ? '' : ` in ${counted(classNames.length, 'class', 'classes')}`;
  const empty =
    emptyClasses.length > 0 ? `, ${emptyClasses.length} without an image: ${someOf(emptyClasses)}` : '';
  const out = leftOut.text === '' ? '' : ` (left out: ${leftOut.text})`;
  return `${root}: ${counted(size, 'image', 'images')}${classes}${empty}${out}`;
}

/** Reports what a data set holds and what was left out of it; on rank 0 only. */
export function reportFound(set: ImageSet, { reporter, group }: Listener): void {
  if ((group?.rank ?? 0) > 0) return;
  reporter.info(foundText(set));
  const { warning } = set.leftOut;
  if (warning !== undefined) reporter.warn(`${set.root}: ${warning}`);
}
