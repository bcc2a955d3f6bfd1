import { type FileHandle, mkdir, open, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OutputError } from '../errors.js';
import { refuseForeign } from './mark.js';

// Packages such as write-file-atomic take the whole content at once; here files of gigabytes are written part by part.

const REMEDIES: Record<string, string> = {
  ENOSPC: 'the disk is full; free some space or choose another folder',
  EDQUOT: 'the disk quota is used up; free some space or choose another folder',
  EFBIG: 'the file is larger than this disk or the process limit allows; choose another folder',
  EACCES: 'no permission to write there; change the permissions or choose another folder',
  EPERM: 'no permission to write there; change the permissions or choose another folder',
  EROFS: 'the disk is read-only; choose another folder',
  ENOENT: 'its folder does not exist; create the folder first',
  ENOTDIR: 'a part of the path is a file, not a folder; choose another path',
  EEXIST: 'a part of the path is a file, not a folder; choose another path',
  EISDIR: 'a folder of that name exists; remove it or choose another path',
  ENOTEMPTY: 'a folder of that name exists; remove it or choose another path',
};

/** Errors that only writing can cause, wherever in a writer's callback they occur. */
const WRITE_ERRORS = ['ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS'];

function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException)?.code;
}

/** A file system error as an OutputError: one line with the path and the remedy. */
export function outputError(path: string, error: unknown): OutputError {
  const reason = REMEDIES[errorCode(error) ?? ''] ?? (error as Error).message;
  return new OutputError(`cannot write ${path}: ${reason}`, { cause: error });
}

/**
 * Which files may be replaced: those with this program's mark, or any. `any` is for folders that belong to the program, as
 * the record of a run or a job file shows.
 */
export type Replaces = 'marked' | 'any';

let counter = 0;

/**
 * A file that appears under its name only when it is complete. It is written under a temporary name in the same folder;
 * `commit` makes it durable and moves it into place, `abort` removes it. Until then an existing file stays unchanged. If
 * the path is a symbolic link, its target is replaced.
 */
export class AtomicFile {
  private constructor(
    readonly path: string,
    private readonly temporary: string,
    /** Open for writing; closed by `commit` and `abort`. */
    readonly handle: FileHandle,
    private readonly replaces: Replaces,
  ) {}

  /** @throws OutputError if the file cannot be created, or must not be replaced */
  static async open(name: string, replaces: Replaces = 'marked'): Promise<AtomicFile> {
    if (replaces === 'marked') await refuseForeign(name);
    const path = await realpath(name).catch(() => name);
    const temporary = join(dirname(path), `.${basename(path)}.alitok-${process.pid}-${counter++}.tmp`);
    try {
      return new AtomicFile(path, temporary, await open(temporary, 'wx+'), replaces);
    } catch (error) {
      throw outputError(path, error);
    }
  }

  /**
   * Appends all bytes, or writes them at `position`.
   * @throws OutputError if the disk is full or failing
   */
  async write(data: Uint8Array, position: number | null = null): Promise<void> {
    try {
      for (let done = 0; done < data.byteLength; ) {
        // One system call writes at most 2 GiB.
        const length = Math.min(data.byteLength - done, 2 ** 30);
        const at = position === null ? null : position + done;
        done += (await this.handle.write(data, done, length, at)).bytesWritten;
      }
    } catch (error) {
      throw outputError(this.path, error);
    }
  }

  /** @throws OutputError if the disk is full or another file has appeared at the path; the file is then removed */
  async commit(): Promise<void> {
    try {
      await this.handle.sync();
      await this.handle.close();
      if (this.replaces === 'marked') await refuseForeign(this.path);
      await rename(this.temporary, this.path);
    } catch (error) {
      await this.abort();
      throw error instanceof OutputError ? error : outputError(this.path, error);
    }
    await syncFolder(dirname(this.path));
  }

  async abort(): Promise<void> {
    await this.handle.close().catch(() => {});
    await rm(this.temporary, { force: true });
  }
}

/**
 * Creates a folder and its parents as needed. Node's recursive mkdir reports a read-only disk as a missing folder.
 * @returns the topmost folder that was created; undefined if all existed
 * @throws OutputError
 */
export async function makeFolder(path: string): Promise<string | undefined> {
  try {
    await mkdir(path);
    return path;
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' && dirname(path) !== path) {
      const topmost = await makeFolder(dirname(path));
      return (await makeFolder(path)) && (topmost ?? path);
    }
    if (code === 'EEXIST' && (await stat(path).catch(() => undefined))?.isDirectory()) return undefined;
    throw outputError(path, error);
  }
}

/** The temporary files of `AtomicFile`; the group is the name of the final file. */
export const TEMPORARY = /^\.(.+)\.alitok-\d+-\d+\.tmp$/;

/**
 * Removes the temporary files that killed processes left in a folder: those of the files `names`, or all. Only for the
 * one process that writes these files.
 */
export async function removeTemporaries(folder: string, names?: readonly string[]): Promise<void> {
  for (const file of await readdir(folder).catch(() => [])) {
    const name = TEMPORARY.exec(file)?.[1];
    if (name !== undefined && (names?.includes(name) ?? true)) await rm(join(folder, file), { force: true });
  }
}

/** Makes a rename in the folder durable, on file systems that can. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

/**
 * Writes a file through `write`. If anything fails, `path` stays as it was and no temporary file remains.
 * @throws OutputError for a full disk, missing permission or folder, or a file that must not be replaced; other errors of
 *   `write` unchanged
 */
export async function writeAtomic(
  path: string,
  write: (file: AtomicFile) => Promise<void>,
  replaces?: Replaces,
): Promise<void> {
  const file = await AtomicFile.open(path, replaces);
  try {
    await write(file);
  } catch (error) {
    await file.abort();
    throw WRITE_ERRORS.includes(errorCode(error) ?? '') ? outputError(path, error) : error;
  }
  await file.commit();
}

/** `writeAtomic` for content in memory. */
export async function writeFileAtomic(
  path: string,
  content: Uint8Array | string,
  replaces?: Replaces,
): Promise<void> {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  await writeAtomic(path, (file) => file.write(bytes), replaces);
}

/** `writeFileAtomic` for a file in a folder that belongs to this program. */
export const writeOwnFile = (path: string, content: Uint8Array | string): Promise<void> =>
  writeFileAtomic(path, content, 'any');
