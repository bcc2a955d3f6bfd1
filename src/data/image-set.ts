import { isAbsolute, normalize } from 'node:path';
import { DataError } from '../errors.js';
import { type LeftOut, leftOutByName } from './left-out.js';

/** Images in a fixed order, each of a class; only their names are in memory. */
export interface ImageSet {
  /** What holds them, for messages: a folder, or tar files as they were named. */
  readonly root: string;
  /** How many there are. */
  readonly size: number;
  /** The class of each image, an index into `classNames`. */
  readonly classes: Int32Array;
  /**
   * The class folders' names in code point order, or numbers where classes are given as such; one empty name where
   * there are no classes.
   */
  readonly classNames: readonly string[];
  /** Class folders without an image; none where a list names the images, or files give the classes' numbers. */
  readonly emptyClasses: readonly string[];
  /** What lies beside the images; nothing where a list names them. */
  readonly leftOut: LeftOut;
  /** Pixels that an image may have at most. */
  readonly maxPixels: number;
  /** An image's path relative to the folder, or in its tar file. */
  path(index: number): string;
  /** An image's full path, for messages. */
  location(index: number): string;
  /** The bytes of an image's file. @throws DataError or a file system's error where it cannot be read */
  read(index: number): Promise<Uint8Array>;
}

/** Some images of a set, in the order given; classes keep their numbers. */
export function subset(set: ImageSet, indices: ArrayLike<number>): ImageSet {
  return {
    ...set,
    size: indices.length,
    classes: Int32Array.from(indices, (index) => set.classes[index]),
    path: (i) => set.path(indices[i]),
    location: (i) => set.location(indices[i]),
    read: (i) => set.read(indices[i]),
  };
}

/** Many texts in one piece of memory: a million strings would take several times their length. */
export class PackedTexts {
  private readonly bytes: Buffer;
  private readonly ends: Float64Array;

  constructor(texts: readonly string[]) {
    this.bytes = Buffer.alloc(texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0));
    this.ends = new Float64Array(texts.length);
    let end = 0;
    texts.forEach((text, i) => {
      end += this.bytes.write(text, end);
      this.ends[i] = end;
    });
  }

  at(index: number): string {
    return this.bytes.toString('utf8', index === 0 ? 0 : this.ends[index - 1], this.ends[index]);
  }
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
 * The classes of images by the first folder of their paths; none of them in a folder is one class with an empty name.
 * @param folders all class folders in code point order, with images or not, so that a class keeps its number
 * @throws DataError where there are no images, some beside and some inside class folders, or one in a folder that is no
 *   class folder
 */
export function classesByFolder(
  root: string,
  paths: readonly string[],
  folders: readonly string[],
  leftOut: LeftOut,
): Pick<ImageSet, 'classes' | 'classNames' | 'emptyClasses'> {
  if (paths.length === 0) {
    const { text, warning } = leftOut;
    const remedy = 'give a folder or a tar file of .jpg, .png or .webp files, or of class folders';
    throw new DataError(
      `${root} holds no images${text === '' ? '' : ` (left out: ${text})`}; ${warning ?? remedy}`,
    );
  }
  const flat = paths.find((path) => !path.includes('/'));
  const nested = paths.find((path) => path.includes('/'));
  if (flat !== undefined && nested !== undefined)
    throw new DataError(
      `${root} has images both outside class folders (${flat}) and inside (${nested}); move the former into a class folder`,
    );
  if (nested === undefined)
    return { classes: new Int32Array(paths.length), classNames: [''], emptyClasses: [] };
  const ranks = new Map(folders.map((name, rank) => [name, rank]));
  const counts = new Uint32Array(folders.length);
  const classes = Int32Array.from(paths, (path) => {
    const rank = ranks.get(path.slice(0, path.indexOf('/')));
    if (rank === undefined)
      throw new DataError(`${path} is in none of the class folders of ${root}; correct the list`);
    counts[rank]++;
    return rank;
  });
  return { classes, classNames: folders, emptyClasses: folders.filter((_, rank) => counts[rank] === 0) };
}

/**
 * Reads a list file: one path, relative to the images' folder, a line.
 * @throws DataError where a path leads out of the folder or is hidden, or there is none
 */
export function parseList(text: string, list: string, root: string): string[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines.length === 0) throw new DataError(`${list} names no images; write one path a line`);
  return lines.map((line) => {
    const path = normalize(line).replaceAll('\\', '/');
    if (isAbsolute(path) || isLeftOut(path))
      throw new DataError(
        `${list} names ${line}; paths must be relative to ${root}, inside it, and neither hidden nor in a system folder`,
      );
    return path;
  });
}

/** Whether a file, or a folder that it is in, is left out by its name. */
function isLeftOut(path: string): boolean {
  const names = path.split('/');
  return names.some((name, i) => leftOutByName(name, i < names.length - 1) !== undefined);
}

/** What to say of listed paths that are not there. */
export function absentError(list: string, root: string, absent: readonly string[]): DataError {
  const first = absent.slice(0, 3).join(', ');
  return new DataError(
    `${list} names ${absent.length} files that are not in ${root} (${first}${absent.length > 3 ? ', …' : ''}); correct the list or the folder`,
  );
}
