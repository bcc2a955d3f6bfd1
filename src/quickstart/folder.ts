import { existsSync, lstatSync } from 'node:fs';
import { readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OutputError } from '../errors.js';
import { TEMPORARY, writeFileAtomic } from '../files/atomic.js';
import { isLock } from '../files/folder-lock.js';
import { MARK } from '../files/mark.js';

/** Lists the files of a quickstart's folder; written first. */
const MARKER = 'quickstart.json';

interface Marker {
  software: string;
  /** Paths relative to the folder. */
  files: string[];
  results?: object;
}

/** All files below a folder, as paths that begin with `prefix`; links are not followed. */
async function filesBelow(folder: string, prefix = ''): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const found = entries.map(async (entry) => {
    const path = join(prefix, entry.name);
    return entry.isDirectory() ? await filesBelow(join(folder, entry.name), path) : [path];
  });
  return (await Promise.all(found)).flat();
}

/** The files that an earlier quickstart wrote, according to its marker; none without a marker. */
async function readMarker(folder: string): Promise<Set<string>> {
  const path = join(folder, MARKER);
  if (!existsSync(path)) return new Set();
  try {
    const { software, files } = JSON.parse(await readFile(path, 'utf8')) as Marker;
    if (software === MARK) return new Set([MARKER, ...files]);
  } catch {
    // Reported below.
  }
  throw new OutputError(`${path} is not from a quickstart; choose another folder with --out`);
}

/** The folder of a quickstart, with a list of the files that it wrote. */
export class QuickstartFolder {
  private constructor(
    readonly path: string,
    private readonly files: Set<string>,
  ) {}

  /**
   * Prepares an existing folder for a new quickstart: removes what an earlier one wrote, and nothing else.
   * @param planned files that will be written, relative to the folder
   * @throws OutputError if anything else is in the folder, which is then not changed
   */
  static async open(path: string, planned: readonly string[]): Promise<QuickstartFolder> {
    const own = await readMarker(path);
    const found = (await filesBelow(path)).filter((file) => !isLock(file)); // without the current lock
    const isOwn = (file: string) => own.has(file) || isLock(basename(file)) || TEMPORARY.test(basename(file));
    const isLink = (file: string) => lstatSync(join(path, file)).isSymbolicLink(); // no quickstart makes links
    const foreign = found.filter((file) => !isOwn(file) || isLink(file));
    const more = foreign.length - 1;
    if (foreign.length > 0)
      throw new OutputError(
        `${path} holds ${foreign[0]}${more > 0 ? ` and ${more} more ${more === 1 ? 'file' : 'files'}` : ''}, which no earlier quickstart wrote; choose another folder with --out`,
      );
    // The marker is removed last, so that an interrupted removal can be continued.
    for (const file of found) if (file !== MARKER) await rm(join(path, file));
    await removeFolders(path, own);
    const folder = new QuickstartFolder(path, new Set(planned));
    await folder.save();
    return folder;
  }

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Runs a step that writes `names` in the folder, and lists what it wrote, even if it failed. */
  async step<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } finally {
      for (const file of await filesBelow(this.path))
        if (names.includes(file.split('/')[0])) this.files.add(file);
      await this.save();
    }
  }

  /** Adds the results to the marker. */
  async finish(results: object): Promise<void> {
    await this.save(results);
  }

  private async save(results?: object): Promise<void> {
    const marker: Marker = { software: MARK, results, files: [...this.files] };
    await writeFileAtomic(this.at(MARKER), `${JSON.stringify(marker, null, 2)}\n`);
  }
}

/** Removes the folders of files, relative to `root`, that are empty now. */
async function removeFolders(root: string, files: Iterable<string>): Promise<void> {
  const folders = new Set<string>();
  for (const file of files)
    for (let folder = dirname(file); folder !== '.'; folder = dirname(folder)) folders.add(folder);
  const deepestFirst = [...folders].sort((a, b) => b.split('/').length - a.split('/').length);
  for (const folder of deepestFirst) await rmdir(join(root, folder)).catch(() => {}); // gone, or not empty
}
