import type { FileHandle } from 'node:fs/promises';
import { CheckpointError } from '../errors.js';
import { AtomicFile, writeAtomic } from '../files/atomic.js';
import { bytesOf, readFully, type TypedArray } from '../files/bytes.js';
import { MARK } from '../files/mark.js';
import { sizeOf } from '../shapes.js';
import {
  ARRAYS,
  bytesPerElement,
  type Dtype,
  openRegularFile,
  readFloat32,
  type TensorData,
  type TensorFile,
  type TensorInfo,
} from './tensor-file.js';

// The format: https://github.com/huggingface/safetensors — 8 bytes of header length, a JSON header that may end in spaces,
// then the tensors' bytes without gaps. Written here because token caches larger than
// memory are written row by row and read in place.

export type { Dtype, TensorData, TensorInfo } from './tensor-file.js';

/** The format's own limit on its header. */
const MAX_HEADER_BYTES = 100_000_000;

interface StoredTensor extends TensorInfo {
  /** Of its first byte in the file. */
  readonly position: number;
}

function damaged(path: string, what: string): CheckpointError {
  return new CheckpointError(`${path} is not a valid safetensors file: ${what}; fetch or write it again`);
}

/** An open safetensors file. Only its header is in memory. */
export class Safetensors implements TensorFile {
  constructor(
    readonly path: string,
    readonly metadata: Readonly<Record<string, string>>,
    readonly tensors: ReadonlyMap<string, TensorInfo>,
    private readonly handle: FileHandle,
  ) {}

  /**
   * All elements in row-major order, in an array of their dtype (F16 and BF16: raw 16-bit patterns).
   * @throws CheckpointError if there is no such tensor
   */
  async read(name: string): Promise<TypedArray> {
    const { dtype, shape, position } = this.find(name);
    return this.readElements(dtype, sizeOf(shape), position);
  }

  /**
   * Elements `start` to `start + count` in row-major order.
   * @throws CheckpointError if there is no such tensor
   */
  async readRange(name: string, start: number, count: number): Promise<TypedArray> {
    const { dtype, shape, position } = this.find(name);
    if (start < 0 || count < 0 || start + count > sizeOf(shape)) {
      throw new RangeError(`elements ${start} to ${start + count} of ${name}, shape (${shape.join(', ')})`);
    }
    return this.readElements(dtype, count, position + start * bytesPerElement(dtype));
  }

  /**
   * A tensor of dtype F32, F16, BF16 or F64 as float32.
   * @throws CheckpointError if there is no such tensor, or it has another dtype
   */
  readFloat32(name: string): Promise<Float32Array> {
    return readFloat32(this, name);
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  private find(name: string): StoredTensor {
    const tensor = this.tensors.get(name) as StoredTensor | undefined;
    if (!tensor) throw new CheckpointError(`${this.path} has no tensor ${name}; is it the right file?`);
    return tensor;
  }

  private async readElements(dtype: Dtype, length: number, position: number): Promise<TypedArray> {
    const bytes = new Uint8Array(length * bytesPerElement(dtype));
    if (!(await readFully(this.handle, bytes, position))) throw damaged(this.path, 'it ends too early');
    return new ARRAYS[dtype](bytes.buffer);
  }
}

/**
 * Opens a safetensors file and checks its header, without reading tensors.
 * @throws CheckpointError if the file is missing, truncated or its header is not valid
 */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const { handle, size } = await openRegularFile(path);
  try {
    const { metadata, tensors } = await readHeader(path, handle, size);
    return new Safetensors(path, metadata, tensors, handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readHeader(path: string, handle: FileHandle, fileSize: number) {
  const prefix = Buffer.alloc(8);
  if (fileSize < 8 || !(await readFully(handle, prefix, 0))) throw damaged(path, `it has ${fileSize} bytes`);
  const length = prefix.readBigUInt64LE();
  if (length > MAX_HEADER_BYTES || Number(length) > fileSize - 8) {
    throw damaged(path, `a header of ${length} bytes in a file of ${fileSize}`);
  }
  const text = Buffer.alloc(Number(length));
  if (!(await readFully(handle, text, 8))) throw damaged(path, 'it ends too early');
  let header: unknown;
  try {
    header = JSON.parse(text.toString());
  } catch {
    throw damaged(path, 'its header is not JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw damaged(path, 'its header is not a JSON object');
  }
  return checkHeader(path, header, 8 + Number(length), fileSize);
}

function checkHeader(path: string, header: object, dataStart: number, fileSize: number) {
  const tensors = new Map<string, StoredTensor>();
  let metadata: Record<string, string> = {};
  const ranges: { name: string; begin: number; end: number }[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isStringRecord(value)) throw damaged(path, '__metadata__ contains values that are not strings');
      metadata = value;
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = value ?? {};
    if (!Object.hasOwn(ARRAYS, dtype)) throw damaged(path, `${name} has the unknown dtype ${String(dtype)}`);
    if (!isSizes(shape)) throw damaged(path, `${name} has no valid shape`);
    if (!isSizes(offsets) || offsets.length !== 2) throw damaged(path, `${name} has no valid data_offsets`);
    const [begin, end] = offsets;
    const bytes = sizeOf(shape) * bytesPerElement(dtype);
    if (end - begin !== bytes) {
      throw damaged(
        path,
        `${name}, ${dtype} (${shape.join(', ')}), needs ${bytes} bytes and has ${end - begin}`,
      );
    }
    ranges.push({ name, begin, end });
    tensors.set(name, { dtype, shape, position: dataStart + begin });
  }
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const { name, begin, end } of ranges) {
    if (begin < position) throw damaged(path, `${name} overlaps another tensor`);
    if (begin > position) throw damaged(path, `there is a gap before ${name}`);
    position = end;
  }
  if (dataStart + position !== fileSize) {
    throw damaged(path, `it should have ${dataStart + position} bytes and has ${fileSize}`);
  }
  return { metadata, tensors };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function isStringRecord(value: unknown): value is Record<string, string> {
  return (
    typeof value === 'object' && value !== null && Object.values(value).every((v) => typeof v === 'string')
  );
}

/** The first bytes of a file: length and header, padded with spaces to `reserved` bytes or a multiple of 8. */
function encodeHeader(
  tensors: readonly (TensorInfo & { name: string })[],
  metadata: Readonly<Record<string, string>>,
  reserved?: number,
): Buffer {
  const header: Record<string, unknown> = { __metadata__: { software: MARK, ...metadata } };
  let position = 0;
  for (const { name, dtype, shape } of tensors) {
    if (Object.hasOwn(header, name)) throw new Error(`two tensors are named ${name}`);
    const end = position + sizeOf(shape) * bytesPerElement(dtype);
    header[name] = { dtype, shape, data_offsets: [position, end] };
    position = end;
  }
  const text = Buffer.from(JSON.stringify(header));
  const size = reserved ?? Math.ceil((8 + text.length) / 8) * 8;
  if (8 + text.length > size) throw new Error(`a header of ${text.length} bytes in ${size} reserved bytes`);
  const bytes = Buffer.alloc(size, ' ');
  bytes.writeBigUInt64LE(BigInt(size - 8));
  text.copy(bytes, 8);
  return bytes;
}

async function writeTensor(file: AtomicFile, { name, dtype, shape, data }: TensorData): Promise<void> {
  const array = typeof data === 'function' ? await data() : data;
  if (!(array instanceof ARRAYS[dtype]) || array.length !== sizeOf(shape)) {
    const given = `${array.constructor.name} of ${array.length}`;
    throw new Error(`${name} should be ${dtype} (${shape.join(', ')}), but its data is a ${given}`);
  }
  await file.write(bytesOf(array));
}

/**
 * Writes a safetensors file atomically. One tensor at a time is in memory. Tensors are sorted by descending element size,
 * otherwise kept in the given order, so that each is aligned.
 * @throws OutputError if the file cannot be written
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorData>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const sorted = [...tensors].sort((a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype));
  await writeAtomic(path, async (file) => {
    await file.write(encodeHeader(sorted, metadata));
    for (const tensor of sorted) await writeTensor(file, tensor);
  });
}

/** Space for the tensors and metadata that are passed to `finish`. */
const SPARE_HEADER_BYTES = 4096;

/**
 * Writes a safetensors file whose first tensor grows row by row to a length known only at the end. Space for the header is
 * reserved and filled by `finish`; until then nothing appears at `path`.
 */
export class SafetensorsWriter {
  private rows = 0;

  private constructor(
    private readonly file: AtomicFile,
    private readonly reserved: number,
    private readonly tensor: TensorInfo & { name: string },
    private readonly metadata: Readonly<Record<string, string>>,
  ) {}

  /**
   * @param tensor the growing tensor; its first dimension is an upper bound
   * @throws OutputError if the file cannot be created
   */
  static async create(
    path: string,
    tensor: TensorInfo & { name: string },
    metadata: Readonly<Record<string, string>>,
  ): Promise<SafetensorsWriter> {
    const reserved = encodeHeader([tensor], metadata).length + SPARE_HEADER_BYTES;
    const file = await AtomicFile.open(path);
    const writer = new SafetensorsWriter(file, reserved, tensor, metadata);
    await writer.guard(() => file.write(new Uint8Array(reserved)));
    return writer;
  }

  /** Appends one or more whole rows. If that fails the file is removed, and the writer cannot be used any more. */
  async append(rows: TypedArray): Promise<void> {
    const { name, dtype, shape } = this.tensor;
    const count = rows.length / sizeOf(shape.slice(1));
    if (!(rows instanceof ARRAYS[dtype]) || !Number.isInteger(count) || this.rows + count > shape[0]) {
      throw new Error(`${rows.length} elements do not fit into ${name}, ${dtype} (${shape.join(', ')})`);
    }
    this.rows += count;
    await this.guard(() => this.file.write(bytesOf(rows)));
  }

  /**
   * Adds the other tensors and more metadata, completes the header and moves the file into place.
   * @throws OutputError if the file cannot be written
   */
  async finish(rest: readonly TensorData[], metadata: Readonly<Record<string, string>> = {}): Promise<void> {
    const tensor = { ...this.tensor, shape: [this.rows, ...this.tensor.shape.slice(1)] };
    await this.guard(async () => {
      for (const each of rest) await writeTensor(this.file, each);
      const header = encodeHeader([tensor, ...rest], { ...this.metadata, ...metadata }, this.reserved);
      await this.file.write(header, 0);
    });
    await this.file.commit();
  }

  /** Removes the unfinished file. */
  abort(): Promise<void> {
    return this.file.abort();
  }

  private async guard(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      await this.file.abort();
      throw error;
    }
  }
}
