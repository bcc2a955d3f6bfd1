import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader, type ZipFile } from 'yauzl';
import { readFully } from '../files/bytes.js';

export type ZipEntry = Entry;

const [STORED, DEFLATED] = [0, 8];

/** Deflate compresses to no less than one byte in this many. */
const MAX_DEFLATE_RATIO = 1032;

/** More than any file of weights has: the limits of what a hostile file costs. */
const [MAX_ENTRIES, MAX_DIRECTORY_BYTES] = [2 ** 16, 2 ** 24];

/** Bytes of the fixed fields of an entry's directory record and of its local header. */
const [RECORD_BYTES, HEADER_BYTES] = [46, 30];

/** From the directory's size, a 32-bit field of the end record, to the archive comment. */
const SIZE_TO_COMMENT = 10;
/** Stands in that field where the zip64 end record has the size. */
const IN_ZIP64 = 0xffffffff;

const READ_AHEAD = 2 ** 16;
const CHUNK = 2 ** 16;

/** The file as yauzl reads it. By itself yauzl makes two system calls for each entry of the directory. */
class FileReader extends RandomAccessReader {
  /** Bytes to read at once, at least. */
  ahead = READ_AHEAD;
  private window = Buffer.alloc(0);
  private start = 0;

  constructor(
    private readonly handle: FileHandle,
    private readonly size: number,
  ) {
    super();
  }

  override read(
    into: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    const copy = (window: Buffer, at: number) => {
      if (at < 0 || at + length > window.length) return false;
      window.copy(into, offset, at, at + length);
      return true;
    };
    if (copy(this.window, position - this.start)) callback(null);
    else if (position + length > this.size) callback(new Error('it ends too early'));
    else
      this.fill(position, Math.min(Math.max(length, this.ahead), this.size - position)).then(
        (window) => callback(copy(window, 0) ? null : new Error('it ends too early')),
        callback,
      );
  }

  override _readStreamForRange(start: number, end: number): Readable {
    return Readable.from(this.chunks(start, end), { objectMode: false });
  }

  private async fill(position: number, length: number): Promise<Buffer> {
    const { buffer, bytesRead } = await this.handle.read(Buffer.allocUnsafe(length), 0, length, position);
    this.window = buffer.subarray(0, bytesRead);
    this.start = position;
    return this.window;
  }

  private async *chunks(start: number, end: number): AsyncGenerator<Buffer> {
    for (let at = start; at < end; ) {
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK, end - at));
      const { bytesRead } = await this.handle.read(chunk, 0, chunk.length, at);
      if (bytesRead === 0) return; // yauzl counts the bytes
      yield chunk.subarray(0, bytesRead);
      at += bytesRead;
    }
  }
}

/**
 * The entries of a zip file, stored or deflated, of which only the directory is in memory. Its errors do not name the
 * file: callers do.
 */
export class ZipArchive {
  private unpacked?: { entry: ZipEntry; content: Uint8Array };

  private constructor(
    private readonly handle: FileHandle,
    private readonly zip: ZipFile,
    /** By name, in the file's order. */
    readonly entries: ReadonlyMap<string, ZipEntry>,
  ) {}

  /**
   * Reads the directory of an open file of `size` bytes, which stays the caller's to close.
   * @throws Error where it is not valid or too large, or has entries that are encrypted, compressed by another method,
   *   of the same name, or larger than the file allows
   */
  static async open(handle: FileHandle, size: number): Promise<ZipArchive> {
    const reader = new FileReader(handle, size);
    // Names are taken as UTF-8, even without the flag for it: Python and PyTorch write nothing else.
    const options = { autoClose: false, decodeStrings: false };
    const zip = await fromRandomAccessReaderPromise(reader, size, options).catch((cause) => {
      if (cause.code !== undefined) throw cause; // of the file system
      throw new Error('it does not end as a zip file: it is cut off, or extra bytes follow', { cause });
    });
    if (zip.entryCount > MAX_ENTRIES) throw new Error(`it claims ${zip.entryCount} entries`);
    const entries = new Map<string, ZipEntry>();
    let directory = 0;
    for await (const entry of zip.eachEntry()) {
      directory += RECORD_BYTES + entry.fileNameLength + entry.extraFieldLength + entry.fileCommentLength;
      if (directory > MAX_DIRECTORY_BYTES)
        throw new Error(`its zip directory has more than ${MAX_DIRECTORY_BYTES} bytes`);
      const name = entry.fileNameRaw.toString();
      check(name, entry, size);
      if (entries.has(name)) throw new Error(`it has two entries ${name}`);
      entries.set(name, entry);
    }
    const claimed = Buffer.alloc(4);
    await readFully(handle, claimed, size - zip.comment.length - SIZE_TO_COMMENT);
    if (![directory, IN_ZIP64].includes(claimed.readUInt32LE()))
      throw new Error(`it claims a zip directory of ${claimed.readUInt32LE()} bytes and has ${directory}`);
    reader.ahead = 0; // from here on, reads are far apart
    return new ZipArchive(handle, zip, entries);
  }

  /**
   * Fills `into` from byte `start` of an entry's content. A stored entry is read in place; a deflated one is unpacked
   * whole and kept until another is read.
   * @throws Error where the entry ends before, or does not unpack to its size
   */
  async read(entry: ZipEntry, start: number, into: Uint8Array): Promise<void> {
    if (start + into.length > entry.uncompressedSize) throw new Error('an entry ends too early');
    if (entry.compressionMethod === DEFLATED) {
      into.set((await this.unpack(entry)).subarray(start, start + into.length));
      return;
    }
    const { fileDataStart } = await this.zip.readLocalFileHeaderPromise(entry, { minimal: true });
    if (!(await readFully(this.handle, into, fileDataStart + start))) throw new Error('it ends too early');
  }

  /** The content of an entry; of a stored one the bytes `start` to `end`. Errors come out of the stream. */
  stream(entry: ZipEntry, range: { start?: number; end?: number } = {}): Promise<Readable> {
    return this.zip.openReadStreamPromise(entry, range);
  }

  private async unpack(entry: ZipEntry): Promise<Uint8Array> {
    if (this.unpacked?.entry === entry) return this.unpacked.content;
    this.unpacked = undefined;
    const content = new Uint8Array(entry.uncompressedSize);
    let length = 0;
    for await (const chunk of (await this.stream(entry)) as AsyncIterable<Uint8Array>) {
      content.set(chunk, length);
      length += chunk.length;
    }
    this.unpacked = { entry, content };
    return content;
  }
}

/** Whether an entry is stored, so that a range of it can be read without what comes before. */
export const isStored = (entry: ZipEntry): boolean => entry.compressionMethod === STORED;

/** What yauzl leaves to its callers. */
function check(name: string, entry: ZipEntry, fileSize: number): void {
  const { uncompressedSize, compressedSize, relativeOffsetOfLocalHeader } = entry;
  if (!entry.canDecodeFileData())
    throw new Error(`its entry ${name} is encrypted, or compressed by another method than deflate`);
  if (uncompressedSize > MAX_DEFLATE_RATIO * compressedSize)
    throw new Error(`its entry ${name} claims ${uncompressedSize} bytes of ${compressedSize} in the file`);
  if (relativeOffsetOfLocalHeader + HEADER_BYTES + compressedSize > fileSize)
    throw new Error(`its entry ${name} claims ${compressedSize} bytes in a file of ${fileSize}`);
}
