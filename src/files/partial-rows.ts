import { type FileHandle, open, readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Interrupted, OutputError, option } from '../errors.js';
import { outputError, removeTemporaries, writeOwnFile } from './atomic.js';
import { readFully } from './bytes.js';
import { type FolderLock, isLock, lockFolder } from './folder-lock.js';

const JOB_FILE = 'job.json';

/** Size of the parts in which images are read. */
const PART_BYTES = 2 ** 24;

/** Everything that determines the images. A run with the same values may continue the work. */
export type RowsJob = Record<string, unknown>;

export interface RowsOptions {
  /** The file's name in the folder. */
  name: string;
  /** Size of an image's row. */
  rowBytes: number;
  /** Images per batch. */
  batch: number;
  /** Images of the whole job. */
  total: number;
}

/**
 * The images of unfinished work, one row of bytes after the other, in a folder beside the results. The job file is written
 * first and marks the folder as this program's; only that file and the rows are ever removed.
 */
export class PartialRows {
  private constructor(
    readonly folder: string,
    private readonly path: string,
    private readonly lock: FolderLock,
    private readonly handle: FileHandle,
    readonly rowBytes: number,
    /** Images so far. */
    public count: number,
  ) {}

  /**
   * Starts work in a folder, or resumes what an interrupted run of the same job left there, after its last whole batch.
   * @throws OutputError if the folder cannot be written, is in use, or contains images of another job or anything else
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

  /** Adds whole images, which are on the disk when it returns. @throws OutputError if the disk is full */
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
   * All images in parts of whole rows, one part in memory at a time.
   * @throws Interrupted if the signal is aborted
   */
  async *parts(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const end = this.count * this.rowBytes;
    const length = Math.max(1, Math.floor(PART_BYTES / this.rowBytes)) * this.rowBytes;
    for (let position = 0; position < end; position += length) {
      if (signal.aborted)
        throw new Interrupted(`stopped; all images are kept in ${this.folder}, and the same command resumes`);
      const part = new Uint8Array(Math.min(length, end - position));
      await this.fill(part, position);
      yield part;
    }
  }

  /** Leaves the folder for a run that resumes. */
  async close(): Promise<void> {
    await this.handle.close();
    await this.lock.release();
  }

  /** Removes the work's files, and the folder if nothing else is in it. */
  async remove(): Promise<void> {
    await rm(this.path, { force: true });
    await rm(join(this.folder, JOB_FILE), { force: true });
    await this.close();
    await rmdir(this.folder).catch(() => {}); // removed with its lock, or not empty
  }

  private async fill(into: Uint8Array, position: number): Promise<void> {
    if (!(await readFully(this.handle, into, position)))
      throw new OutputError(`${this.folder} was changed while it was in use; remove it and start again`);
  }
}

/** Opens the file of rows, truncated to whole batches. */
async function openRows(
  folder: string,
  job: RowsJob,
  { name, rowBytes, batch, total }: RowsOptions,
): Promise<{ handle: FileHandle; count: number }> {
  const description = JSON.stringify(job, null, 2);
  const found = await readFile(join(folder, JOB_FILE), 'utf8').catch(() => undefined);
  if (found !== undefined && found !== description)
    throw new OutputError(
      `${folder} contains images of an interrupted run with another ${differences(found, job)}; resume that one, remove the folder or choose another ${option('out')}`,
    );
  const path = join(folder, name);
  try {
    if (found === undefined) {
      await removeTemporaries(folder, [JOB_FILE]);
      const foreign = (await readdir(folder)).find((file) => !isLock(file));
      if (foreign !== undefined)
        throw new OutputError(
          `${folder} contains ${foreign}, which does not belong to an interrupted run; move it away, or choose another ${option('out')}`,
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

/** The keys in which the job in the folder differs. */
function differences(found: string, job: RowsJob): string {
  let other: RowsJob = {};
  try {
    other = JSON.parse(found) as RowsJob;
  } catch {
    // A damaged job file differs in every key.
  }
  const keys = Object.keys(job).filter((key) => JSON.stringify(job[key]) !== JSON.stringify(other?.[key]));
  return keys.join(', ');
}
