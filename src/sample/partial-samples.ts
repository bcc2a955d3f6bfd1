import { type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { OutputError } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import { readFully } from '../formats/bytes.js';

const FOLDER = 'partial';
const JOB_FILE = 'job.json';
const PIXELS_FILE = 'pixels';

/** How much is read at once. */
const PART_BYTES = 2 ** 24;

/** All that decides what the images are: if it is the same, another run may go on with them. */
export type SampleJob = Record<string, unknown>;

/** The images of a sampling run that is under way, uint8 pixels of one after the other, in a folder beside the results. */
export class PartialSamples {
  private constructor(
    readonly folder: string,
    private readonly handle: FileHandle,
    private readonly imageBytes: number,
    /** How many images there are. */
    public count: number,
  ) {}

  /**
   * Begins in `out`, or goes on with what an interrupted run of the same job left there, by whole batches.
   * @throws OutputError where it cannot be written, or holds images of another job
   */
  static async open(
    out: string,
    job: SampleJob,
    { imageBytes, batch, total }: { imageBytes: number; batch: number; total: number },
  ): Promise<PartialSamples> {
    const folder = join(out, FOLDER);
    const description = JSON.stringify(job, null, 2);
    const found = await readFile(join(folder, JOB_FILE), 'utf8').catch(() => undefined);
    if (found !== undefined && found !== description)
      throw new OutputError(
        `${folder} holds images of an interrupted run with another ${differences(found, job)}; go on with that one, remove the folder or choose another --out`,
      );
    const path = join(folder, PIXELS_FILE);
    try {
      await mkdir(folder, { recursive: true });
      if (found === undefined) {
        await rm(path, { force: true });
        await writeFileAtomic(join(folder, JOB_FILE), description);
      }
      const handle = await open(path, found === undefined ? 'w+' : 'r+').catch((error) => {
        if (error.code === 'ENOENT') return open(path, 'w+');
        throw error;
      });
      const whole = Math.floor((await handle.stat()).size / imageBytes);
      const count = whole >= total ? total : whole - (whole % batch);
      await handle.truncate(count * imageBytes);
      return new PartialSamples(folder, handle, imageBytes, count);
    } catch (error) {
      throw error instanceof OutputError ? error : outputError(folder, error);
    }
  }

  /** Adds whole images; they are on the disk when it returns. @throws OutputError where the disk is full */
  async append(pixels: Uint8Array): Promise<void> {
    try {
      let position = this.count * this.imageBytes;
      for (let done = 0; done < pixels.length; ) {
        const { bytesWritten } = await this.handle.write(pixels, done, pixels.length - done, position);
        done += bytesWritten;
        position += bytesWritten;
      }
      await this.handle.datasync();
    } catch (error) {
      throw outputError(this.folder, error);
    }
    this.count += pixels.length / this.imageBytes;
  }

  async image(index: number): Promise<Uint8Array> {
    const pixels = new Uint8Array(this.imageBytes);
    await this.fill(pixels, index * this.imageBytes);
    return pixels;
  }

  /** All images in parts, of which one at a time is in memory. */
  async *parts(): AsyncGenerator<Uint8Array> {
    const end = this.count * this.imageBytes;
    for (let position = 0; position < end; position += PART_BYTES) {
      const part = new Uint8Array(Math.min(PART_BYTES, end - position));
      await this.fill(part, position);
      yield part;
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  /** Removes the folder, once the results are written. */
  async remove(): Promise<void> {
    await this.close();
    await rm(this.folder, { recursive: true, force: true });
  }

  private async fill(into: Uint8Array, position: number): Promise<void> {
    if (!(await readFully(this.handle, into, position)))
      throw new OutputError(`${this.folder} was changed while it was in use; remove it and sample again`);
  }
}

/** The keys in which the job that is found differs. */
function differences(found: string, job: SampleJob): string {
  let other: SampleJob = {};
  try {
    other = JSON.parse(found) as SampleJob;
  } catch {
    // Damaged: it differs in everything.
  }
  const keys = Object.keys(job).filter((key) => JSON.stringify(job[key]) !== JSON.stringify(other?.[key]));
  return keys.join(', ');
}
