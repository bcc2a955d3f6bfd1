import { type FileHandle, open, readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Interrupted, OutputError, option } from '../errors.js';
import { outputError, removeTemporaries, writeOwnFile } from './atomic.js';
import { readFully } from './bytes.js';
import { type FolderLock, isLock, lockFolder } from './folder-lock.js';

const JOB_FILE = 'job.json';

/** How much is read at once. */
const PART_BYTES = 2 ** 24;

/** All that decides what the images are: if it is the same, another run may go on with them. */
export type RowsJob = Record<string, unknown>;

export interface RowsOptions {
  /** The file's name in the folder. */
  name: string;
  /** Bytes of the row that an image is. */
  rowBytes: number;
  /** Images that are made at once. */
  batch: number;
  total: number;
}

/**
 * The images of work that is under way, one row of bytes after the other, in a folder beside the results. The folder's
 * job file is written first, and says that it is this program's; nothing but that file and the rows is ever removed.
 */
export class PartialRows {
  private constructor(
    readonly folder: string,
    private readonly path: string,
    private readonly lock: FolderLock,
    private readonly handle: FileHandle,
    readonly rowBytes: number,
    /** How many images there are. */
    public count: number,
  ) {}

  /**
   * Begins in a folder, or goes on with what an interrupted run of the same job left there, by whole batches.
   * @throws OutputError where it cannot be written, is in use, or holds images of another job or anything else
   */
  static async open(folder: string, job: RowsJob, options: RowsOptions): Promise<PartialRows> {
    const lock = await lockFolder(folder);
    try {
      const { handle, count } = await openRows(folder, job, options);
      return new PartialRows(folder, join(folder, options.name), lock, handle, options.rowBytes, count);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Adds whole images; they are on the disk when it returns. @throws OutputError where the disk is full */
  async append(rows: Uint8Array): Promise<void> {
    try {
      let position = this.count * this.rowBytes;
      for (let done = 0; done < rows.length; ) {
        const { bytesWritten } = await this.handle.write(rows, done, rows.length - done, position);
        done += bytesWritten;
        position += bytesWritten;
      }
      await this.handle.datasync();
    } catch (error) {
      throw outputError(this.folder, error);
    }
    this.count += rows.length / this.rowBytes;
  }

  /** The row of one image. */
  async row(index: number): Promise<Uint8Array> {
    const row = new Uint8Array(this.rowBytes);
    await this.fill(row, index * this.rowBytes);
    return row;
  }

  /**
   * All images in parts of whole rows, of which one at a time is in memory.
   * @throws Interrupted where the signal is aborted meanwhile
   */
  async *parts(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const end = this.count * this.rowBytes;
    const length = Math.max(1, Math.floor(PART_BYTES / this.rowBytes)) * this.rowBytes;
    for (let position = 0; position < end; position += length) {
      if (signal.aborted)
        throw new Interrupted(`stopped; all images are kept in ${this.folder}, and the same command goes on`);
      const part = new Uint8Array(Math.min(length, end - position));
      await this.fill(part, position);
      yield part;
    }
  }

  /** Leaves the folder for a run that goes on. */
  async close(): Promise<void> {
    await this.handle.close();
    await this.lock.release();
  }

  /** Removes what is in the folder of the work, and the folder where nothing else is in it. */
  async remove(): Promise<void> {
    await rm(this.path, { force: true });
    await rm(join(this.folder, JOB_FILE), { force: true });
    await this.close();
    await rmdir(this.folder).catch(() => {}); // gone with its lock, or something is in it
  }

  private async fill(into: Uint8Array, position: number): Promise<void> {
    if (!(await readFully(this.handle, into, position)))
      throw new OutputError(`${this.folder} was changed while it was in use; remove it and start again`);
  }
}

/** The rows' file, cut to whole batches. */
async function openRows(
  folder: string,
  job: RowsJob,
  { name, rowBytes, batch, total }: RowsOptions,
): Promise<{ handle: FileHandle; count: number }> {
  const description = JSON.stringify(job, null, 2);
  const found = await readFile(join(folder, JOB_FILE), 'utf8').catch(() => undefined);
  if (found !== undefined && found !== description)
    throw new OutputError(
      `${folder} holds images of an interrupted run with another ${differences(found, job)}; go on with that one, remove the folder or choose another ${option('out')}`,
    );
  const path = join(folder, name);
  try {
    if (found === undefined) {
      await removeTemporaries(folder, [JOB_FILE]);
      const foreign = (await readdir(folder)).find((file) => !isLock(file));
      if (foreign !== undefined)
        throw new OutputError(
          `${folder} holds ${foreign}, which is of no interrupted run; move it away, or choose another ${option('out')}`,
        );
      await writeOwnFile(join(folder, JOB_FILE), description);
    }
    const handle = await open(path, found === undefined ? 'w+' : 'r+').catch((error) => {
      if (error.code === 'ENOENT') return open(path, 'w+');
      throw error;
    });
    const whole = Math.floor((await handle.stat()).size / rowBytes);
    const count = whole >= total ? total : whole - (whole % batch);
    await handle.truncate(count * rowBytes);
    return { handle, count };
  } catch (error) {
    throw error instanceof OutputError ? error : outputError(folder, error);
  }
}

/** The keys in which the job that is found differs. */
function differences(found: string, job: RowsJob): string {
  let other: RowsJob = {};
  try {
    other = JSON.parse(found) as RowsJob;
  } catch {
    // Damaged: it differs in everything.
  }
  const keys = Object.keys(job).filter((key) => JSON.stringify(job[key]) !== JSON.stringify(other?.[key]));
  return keys.join(', ');
}
