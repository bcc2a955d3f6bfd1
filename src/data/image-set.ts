import { isAbsolute, normalize } from 'node:path';
import { DataError } from '../errors.js';
import { type LeftOut, leftOutByName } from './left-out.js';

/** Images in a fixed order, each with a class. Only their names are kept in memory. */
export interface ImageSet {
  /** The folder, or the tar files as the user named them, for messages. */
  readonly root: string;
  /** The number of images. */
  readonly size: number;
  /** The class of each image, an index into `classNames`. */
  readonly classes: Int32Array;
  /**
   * The names of the class folders in code point order, or numbers if classes are given as numbers; one empty name if
   * there are no classes.
   */
  readonly classNames: readonly string[];
  /** Class folders without images; empty if a list names the images, or classes are given as numbers. */
  readonly emptyClasses: readonly string[];
  /** The files that are not used; empty if a list names the images. */
  readonly leftOut: LeftOut;
  /** Maximum number of pixels of an image. */
  readonly maxPixels: number;
  /** An image's path relative to the folder, or in its tar file. */
  path(index: number): string;
  /** An image's full path, for messages. */
  location(index: number): string;
  /** Reads the file of an image. @throws DataError or an error of the file system if it cannot be read */
  read(index: number): Promise<Uint8Array>;
}

/** The given images of a set, in the given order. Classes keep their numbers. */
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

/** Many strings in one buffer: a million single strings would take several times as much memory. */
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

/** Compares strings by code point, as Python does; JavaScript compares UTF-16 units. */
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
 * Gives images the class of the first folder in their path. Images without folders form one class with an empty name.
 * @param folders all class folders in code point order, including empty ones, so that each class keeps its number
 * @throws DataError if there are no images, images lie both inside and outside class folders, or an image lies in a folder
 *   that is not a class folder
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
      throw new DataError(`${path} is not in a class folder of ${root}; correct the list`);
    counts[rank]++;
    return rank;
  });
  return { classes, classNames: folders, emptyClasses: folders.filter((_, rank) => counts[rank] === 0) };
}

/**
 * Parses a list file, which has one path per line, relative to the image folder.
 * @throws DataError if it is empty, or a path is outside the folder or hidden
 */
export function parseList(text: string, list: string, root: string): string[] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines.length === 0) throw new DataError(`${list} names no images; write one path per line`);
  return lines.map((line) => {
    const path = normalize(line).replaceAll('\\', '/');
    if (isAbsolute(path) || isLeftOut(path))
      throw new DataError(
        `${list} names ${line}; paths must be relative to ${root}, inside it, and neither hidden nor in a system folder`,
      );
    return path;
  });
}

/** Whether a file or one of its parent folders is left out because of its name. */
function isLeftOut(path: string): boolean {
  const names = path.split('/');
  return names.some((name, i) => leftOutByName(name, i < names.length - 1) !== undefined);
}

/** The error for listed files that do not exist. */
export function absentError(list: string, root: string, absent: readonly string[]): DataError {
  const first = absent.slice(0, 3).join(', ');
  return new DataError(
    `${list} names ${absent.length} files that are not in ${root} (${first}${absent.length > 3 ? ', …' : ''}); correct the list or the folder`,
  );
}
