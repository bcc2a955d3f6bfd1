import { existsSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { expand } from 'brace-expansion';
import { glob } from 'tinyglobby';
import { DataError } from '../errors.js';
import { readFully } from '../files/bytes.js';
import { HEAD_BYTES } from '../formats/image-kind.js';
import { TarFile, type TarMember } from '../formats/tar.js';
import { absentError, byCodePoint, classesByFolder, type ImageSet, PackedTexts } from './image-set.js';
import { isImage, LeftOut, leftOutByName } from './left-out.js';

/** Tar files that form one set of images, and the folder inside them that is used: '' or a path that ends in `/`. */
export interface Shards {
  readonly tars: readonly string[];
  readonly inside: string;
}

/**
 * Finds the tar files that a name stands for: a single file, `train-{0000..0099}.tar` or `shards/*.tar`, optionally
 * followed by a folder inside them, as in `photos.tar/train`. Undefined if the name is not that of tar files.
 * @throws DataError if no file matches, or a file is compressed
 */
export async function findShards(name: string): Promise<Shards | undefined> {
  if ((await stat(name).catch(() => undefined))?.isDirectory()) return undefined;
  const compressed = /\.(tgz|tar\.\w+)$/i.test(name);
  if (compressed)
    throw new DataError(
      `${name} is compressed, but images are read in random order; decompress it to a .tar, for instance with gunzip, and name that`,
    );
  const [, pattern, folder] = /^(.+?\.tar)(?:\/+(.*?)\/*)?$/i.exec(name) ?? [];
  if (pattern === undefined) return undefined;
  const inside = folder ? `${folder}/` : '';
  // An existing file of this name takes precedence over the pattern.
  if (existsSync(pattern)) return { tars: [pattern], inside };
  const tars: string[] = [];
  for (const path of expand(pattern)) {
    const found = /[*?[]/.test(path) ? await glob(path, { expandDirectories: false, dot: true }) : [path];
    if (found.length === 0) throw new DataError(`no tar file matches ${path}; check the path`);
    tars.push(...found.sort(byCodePoint));
  }
  return { tars, inside };
}

/** Largest class number. There is a name for every number up to the largest, so a wrong one must not create millions. */
const MAX_CLASS = 99_999;

/** Headers that are read between turns of the event loop. */
const TURN_EVERY = 2 ** 14;

/** The images found so far while tar files are read. */
class Index {
  readonly paths: string[] = [];
  readonly shards: number[] = [];
  readonly positions: number[] = [];
  readonly sizes: number[] = [];
  /** From `.cls` members; −1 if there is none. */
  readonly classes: number[] = [];
  readonly folders = new Set<string>();
  readonly leftOut = new LeftOut();
  /** Folders that have been counted as left out. */
  private readonly leftOutFolders = new Set<string>();
  numbered = false;
  /** Two images with the same name up to the first dot, for which a `.cls` would be ambiguous. */
  ambiguous?: [string, string];
  private key?: string;
  private keyShard = 0;
  private keyStart = 0;
  private keyClass = -1;

  /** Adds a member; `contents` reads its bytes. @throws DataError for a link to an image or a `.cls` without a number */
  async add(
    tar: string,
    shard: number,
    inside: string,
    member: TarMember,
    contents: (length?: number) => Buffer,
  ): Promise<void> {
    if (!member.path.startsWith(inside)) return;
    const path = member.path.slice(inside.length);
    if (path === '' || this.leavesOut(path, member.type === 'folder')) return;
    const slash = path.indexOf('/');
    if (slash >= 0 || member.type === 'folder') this.folders.add(slash < 0 ? path : path.slice(0, slash));
    if (member.type === 'folder') return;
    const label = path.endsWith('.cls');
    if (!label && !isImage(path)) {
      if (member.type === 'link') this.leftOut.add('links');
      else await this.leftOut.addFile(path.slice(path.lastIndexOf('/') + 1), () => contents(HEAD_BYTES));
      return;
    }
    if (member.type === 'link')
      throw new DataError(
        `${tar}: ${member.path} is a link; pack the files themselves, with \`tar --dereference --hard-dereference\``,
      );
    // As in webdataset, a sample consists of adjacent members with the same name up to the first dot.
    const key = path.slice(0, path.indexOf('.', path.lastIndexOf('/') + 1));
    if (key !== this.key || shard !== this.keyShard) {
      this.key = key;
      this.keyShard = shard;
      this.keyStart = this.paths.length;
      this.keyClass = -1;
    }
    if (label) {
      const text = member.size <= 32 ? contents().toString('latin1').trim() : '';
      if (!/^\d+$/.test(text) || Number(text) > MAX_CLASS)
        throw new DataError(
          `${tar}: ${member.path} holds no class number from 0 to ${MAX_CLASS}; write the class into it as decimal digits`,
        );
      this.numbered = true;
      this.keyClass = Number(text);
      this.classes.fill(this.keyClass, this.keyStart);
      return;
    }
    if (this.paths.length > this.keyStart) this.ambiguous ??= [this.paths.at(-1)!, path];
    this.paths.push(path);
    this.shards.push(shard);
    this.positions.push(member.position);
    this.sizes.push(member.size);
    this.classes.push(this.keyClass);
  }

  /** Whether a member is left out because of its name or that of a parent folder; if so, counts it. */
  private leavesOut(path: string, folder: boolean): boolean {
    for (let start = 0, end = 0; end < path.length; start = end + 1) {
      const slash = path.indexOf('/', start);
      end = slash < 0 ? path.length : slash;
      const isFolder = slash >= 0 || folder;
      const reason = leftOutByName(path.slice(start, end), isFolder);
      if (reason === undefined) continue;
      const outer = path.slice(0, end);
      if (!isFolder || !this.leftOutFolders.has(outer)) this.leftOut.add(reason);
      if (isFolder) this.leftOutFolders.add(outer);
      return true;
    }
    return false;
  }
}

/**
 * Finds the images in tar files, which are read without unpacking. If members such as `0001.cls` give the class of
 * `0001.jpg`, as in webdataset, the order is that of the tar files. Otherwise a tar file is treated like the folder that it
 * would unpack to, and has that order.
 * @throws DataError if a tar file is missing, damaged or truncated, there are no images, or classes are inconsistent
 */
export async function openShards(
  root: string,
  { tars, inside }: Shards,
  listed?: { paths: string[]; list: string },
): Promise<Omit<ImageSet, 'maxPixels'>> {
  const index = new Index();
  for (const [shard, path] of tars.entries()) {
    const tar = new TarFile(path);
    try {
      let count = 0;
      for (const member of tar.members()) {
        const contents = (length = member.size) =>
          tar.contents({ ...member, size: Math.min(length, member.size) });
        await index.add(path, shard, inside, member, contents);
        if (++count % TURN_EVERY === 0) await setImmediate();
      }
    } finally {
      tar.close();
    }
  }
  const { paths } = index;
  const order = listed
    ? listedOrder(root, paths, listed)
    : index.numbered
      ? [...paths.keys()]
      : folderOrder(paths);
  const ordered = order.map((i) => paths[i]);
  const folders = [...index.folders].sort(byCodePoint);
  // With a list, files that it does not name are not reported as left out.
  const leftOut = listed ? new LeftOut() : index.leftOut;
  const classes = index.numbered
    ? classesByNumber(root, index, order)
    : classesByFolder(root, ordered, folders, leftOut);
  const names = new PackedTexts(ordered);
  const shards = Uint32Array.from(order, (i) => index.shards[i]);
  const positions = Float64Array.from(order, (i) => index.positions[i]);
  const sizes = Float64Array.from(order, (i) => index.sizes[i]);
  const location = (i: number) => `${tars[shards[i]]}/${inside}${names.at(i)}`;
  return {
    root,
    size: order.length,
    ...classes,
    ...(listed && { emptyClasses: [] }),
    leftOut,
    path: (i) => names.at(i),
    location,
    async read(i) {
      const bytes = Buffer.alloc(sizes[i]);
      const handle = await open(tars[shards[i]], 'r');
      try {
        if (!(await readFully(handle, bytes, positions[i])))
          throw new DataError(
            `${location(i)}: the tar file ends before this image; it was changed after it was opened`,
          );
      } finally {
        await handle.close();
      }
      return bytes;
    },
  };
}

/** The index of each listed path. */
function listedOrder(
  root: string,
  paths: readonly string[],
  { paths: wanted, list }: { paths: string[]; list: string },
): number[] {
  const places = new Map(paths.map((path, i) => [path, i]));
  const absent = wanted.filter((path) => !places.has(path));
  if (absent.length > 0) throw absentError(list, root, absent);
  return wanted.map((path) => places.get(path)!);
}

/** The order of a walk through folders: by the first folder that differs, files before folders. */
function inFolderOrder(a: string, b: string): number {
  let start = 0;
  for (;;) {
    const [slashA, slashB] = [a.indexOf('/', start), b.indexOf('/', start)];
    if (slashA < 0 !== slashB < 0) return slashA < 0 ? -1 : 1;
    if (slashA < 0) return byCodePoint(a.slice(start), b.slice(start));
    const difference = byCodePoint(a.slice(start, slashA), b.slice(start, slashB));
    if (difference !== 0) return difference;
    start = slashA + 1;
  }
}

/** Indices of paths, sorted by `inFolderOrder`; equal paths keep the order of the tar files. */
function folderOrder(paths: readonly string[]): number[] {
  const order = [...paths.keys()];
  const sorted = paths.every((path, i) => i === 0 || inFolderOrder(paths[i - 1], path) <= 0);
  return sorted ? order : order.sort((a, b) => inFolderOrder(paths[a], paths[b]));
}

/** The classes given by `.cls` members; every image must have one. */
function classesByNumber(
  root: string,
  { paths, classes, ambiguous }: Index,
  order: readonly number[],
): Pick<ImageSet, 'classes' | 'classNames' | 'emptyClasses'> {
  if (ambiguous)
    throw new DataError(
      `${root}: ${ambiguous.join(' and ')} share one .cls; give each image a unique name up to the first dot`,
    );
  const without = classes.findIndex((c) => c < 0);
  if (without >= 0)
    throw new DataError(
      `${root}: ${paths[without]} has no .cls next to it, but other images do; pack each image with its class`,
    );
  if (order.length === 0) throw new DataError(`${root} holds no images; pack each .cls with its image`);
  const numbers = Int32Array.from(order, (i) => classes[i]);
  const count = 1 + classes.reduce((a, b) => Math.max(a, b), 0);
  const classNames = Array.from({ length: count }, (_, i) => String(i));
  return { classes: numbers, classNames, emptyClasses: [] };
}
