import { type FileHandle, open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { ZipFile } from 'yazl';
import { DataError } from '../errors.js';
import { writeAtomic } from '../files/atomic.js';
import { bytesOf, type TypedArray } from '../files/bytes.js';
import { MARKED_ZIP } from '../files/mark.js';
import { sizeOf } from '../shapes.js';
import {
  decodeNpy,
  encodeNpyHeader,
  MAX_NPY_HEADER_BYTES,
  type NpyArray,
  type NpyDtype,
  type NpyHeader,
  type NpyStrings,
  npyArray,
  parseNpyHeader,
} from './npy.js';
import { isStored, ZipArchive, type ZipEntry } from './zip.js';

const EXTENSION = '.npy';

/** An open .npz file: a zip of .npy files, stored or deflated, read by name. */
export class Npz {
  constructor(
    readonly path: string,
    private readonly zip: ZipArchive,
    private readonly handle: FileHandle,
  ) {}

  /** The arrays' names, without `.npy`, in the file's order. */
  get names(): string[] {
    const files = [...this.zip.entries.keys()].filter((name) => name.endsWith(EXTENSION));
    return files.map((name) => name.slice(0, -EXTENSION.length));
  }

  has(name: string): boolean {
    return this.zip.entries.has(`${name}${EXTENSION}`);
  }

  /**
   * A whole array.
   * @throws DataError if it is missing, damaged, or of an unsupported type
   */
  async read(name: string): Promise<NpyArray | NpyStrings> {
    const size = this.entry(name).uncompressedSize;
    for await (const bytes of this.bytes(name, 0, size, size)) return decodeNpy(bytes, this.label(name));
    throw new DataError(`${this.label(name)} is empty; write the file again`);
  }

  /**
   * An array of numbers as float64, whatever its type.
   * @throws DataError if it is missing, damaged, or contains strings
   */
  async readFloat64(name: string): Promise<{ shape: readonly number[]; data: Float64Array }> {
    const { dtype, shape, data } = await this.read(name);
    if (dtype === 'string') throw new DataError(`${this.label(name)} contains strings; numbers are needed`);
    return { shape, data: Float64Array.from(data as ArrayLike<number | bigint>, Number) };
  }

  /**
   * The type and shape of an array, without its data.
   * @throws DataError if it is missing, damaged, or of an unsupported type
   */
  async header(name: string): Promise<NpyHeader> {
    const length = Math.min(this.entry(name).uncompressedSize, MAX_NPY_HEADER_BYTES);
    for await (const bytes of this.bytes(name, 0, length, length)) {
      return parseNpyHeader(bytes, this.label(name));
    }
    throw new DataError(`${this.label(name)} is empty; write the file again`);
  }

  /**
   * The rows `start` to `end` along the first dimension, `count` at a time and the rest last, so that a large array is
   * never in memory as a whole.
   * @throws DataError if it is missing, damaged, of an unsupported type or in Fortran order
   */
  async *rows(name: string, count: number, start = 0, end?: number): AsyncGenerator<TypedArray> {
    const { dtype, shape, fortranOrder, bytesPerElement, dataStart } = await this.header(name);
    if (dtype === 'string' || shape.length === 0 || fortranOrder) {
      throw new DataError(`${this.label(name)} has no rows of numbers; save it as a row-major array`);
    }
    if (dataStart + sizeOf(shape) * bytesPerElement !== this.entry(name).uncompressedSize) {
      throw new DataError(`${this.label(name)} does not have the size that its header says; write it again`);
    }
    const rowBytes = sizeOf(shape.slice(1)) * bytesPerElement;
    const from = dataStart + start * rowBytes;
    const to = dataStart + (end ?? shape[0]) * rowBytes;
    for await (const bytes of this.bytes(name, from, to, count * rowBytes)) {
      yield new (npyArray(dtype))(bytes.buffer);
    }
  }

  /** Whether rows in the middle of an array can be read without those before. */
  isStored(name: string): boolean {
    return isStored(this.entry(name));
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  private label(name: string): string {
    return `${name} in ${this.path}`;
  }

  private entry(name: string): ZipEntry {
    const entry = this.zip.entries.get(`${name}${EXTENSION}`);
    if (entry) return entry;
    throw new DataError(`${this.path} has no array ${name}; it has ${this.names.join(', ') || 'none'}`);
  }

  /** The unpacked bytes `start` to `end` of an entry in new buffers of `size` bytes, the last one shorter. */
  private async *bytes(
    name: string,
    start: number,
    end: number,
    size: number,
  ): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const entry = this.entry(name);
    const stored = this.isStored(name);
    let skip = stored ? 0 : start;
    let left = end - start;
    let filled = 0;
    try {
      let buffer = new Uint8Array(Math.min(size, left));
      if (left === 0) return;
      const stream = await this.zip.stream(entry, stored ? { start, end } : {});
      for await (const chunk of stream as AsyncIterable<Uint8Array>) {
        let at = Math.min(skip, chunk.length);
        skip -= at;
        while (at < chunk.length && left > 0) {
          const part = chunk.subarray(at, at + buffer.length - filled);
          buffer.set(part, filled);
          filled += part.length;
          at += part.length;
          if (filled === buffer.length) {
            left -= filled;
            yield buffer;
            buffer = new Uint8Array(Math.min(size, left));
            filled = 0;
          }
        }
        if (left === 0) return;
      }
    } catch (error) {
      const reason = (error as Error).message;
      throw new DataError(`cannot read ${this.label(name)}: ${reason}; write the file again`, {
        cause: error,
      });
    }
    throw new DataError(`${this.label(name)} ends too early; write the file again`);
  }
}

/** @throws DataError if the file is missing or not a valid zip */
export async function openNpz(path: string): Promise<Npz> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path);
    return new Npz(path, await ZipArchive.open(handle, (await handle.stat()).size), handle);
  } catch (error) {
    await handle?.close();
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : message;
    throw new DataError(`cannot read ${path} as .npz: ${reason}; check the path or write it again`, {
      cause: error,
    });
  }
}

export interface NpzArray {
  readonly name: string;
  readonly dtype: NpyDtype;
  readonly shape: readonly number[];
  /** The elements in row-major order, at once or in parts; a part must not be changed after it was yielded. */
  readonly data: TypedArray | Iterable<TypedArray> | AsyncIterable<TypedArray>;
}

/**
 * Writes arrays as NumPy's `savez` does (stored, zip64 if needed), atomically. The same arrays give the same bytes. An
 * array given in parts is never in memory as a whole.
 * @throws OutputError if the file cannot be written; whatever the arrays' generators throw
 */
export async function writeNpz(path: string, arrays: readonly NpzArray[]): Promise<void> {
  await writeAtomic(path, async (file) => {
    const zip = new ZipFile();
    const output = zip.outputStream as Readable;
    const fail = (error: Error) => output.destroy(error);
    zip.on('error', fail);
    for (const array of arrays) {
      const header = encodeNpyHeader(array.dtype, array.shape);
      const size = header.length + sizeOf(array.shape) * npyArray(array.dtype).BYTES_PER_ELEMENT;
      const options = { size, compress: false, mtime: new Date(1980, 0, 1), forceDosTimestamp: true };
      zip.addReadStreamLazy(`${array.name}.npy`, options, (done) => {
        const stream = Readable.from(npyParts(header, array), { objectMode: false });
        stream.on('error', fail);
        output.once('close', () => stream.destroy());
        done(null, stream);
      });
    }
    zip.end(MARKED_ZIP);
    for await (const chunk of output) await file.write(chunk);
  });
}

async function* npyParts(header: Uint8Array, { name, dtype, shape, data }: NpzArray) {
  yield header;
  let size = 0;
  for await (const part of isTypedArray(data) ? [data] : data) {
    if (!(part instanceof npyArray(dtype))) throw new Error(`${name}: a part is a ${part.constructor.name}`);
    size += part.length;
    yield bytesOf(part);
  }
  if (size !== sizeOf(shape)) throw new Error(`${name} has ${size} elements, not (${shape.join(', ')})`);
}

function isTypedArray(data: NpzArray['data']): data is TypedArray {
  return ArrayBuffer.isView(data);
}
