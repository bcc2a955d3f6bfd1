import { existsSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { CheckpointError } from '../errors.js';
import type { TypedArray, TypedArrayConstructor } from '../files/bytes.js';

/** The array type of each dtype; F16 and BF16 are raw 16-bit patterns. */
export const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  U16: Uint16Array,
  U32: Uint32Array,
  BOOL: Uint8Array,
} satisfies Record<string, TypedArrayConstructor>;

export type Dtype = keyof typeof ARRAYS;

export interface TensorInfo {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

export interface TensorData extends TensorInfo {
  readonly name: string;
  /** The elements in row-major order, or a function that is called when they are about to be written. */
  readonly data: TypedArray | (() => TypedArray | Promise<TypedArray>);
}

/** Keys of the sets of weights in a file: the one that was chosen, and the others. */
export interface WeightsChoice {
  readonly taken: string;
  readonly others: readonly string[];
}

/**
 * Splits `FILE#KEY`, the weights that a training file has under a key. Any other path, such as an existing file whose name
 * contains a #, has no key.
 */
export function parseWeightsPath(path: string): { file: string; key?: string } {
  const at = path.lastIndexOf('#');
  if (at <= 0 || existsSync(path) || !existsSync(path.slice(0, at))) return { file: path };
  return { file: path.slice(0, at), key: path.slice(at + 1) };
}

/** An open file of named tensors, which are read one at a time. */
export interface TensorFile {
  readonly path: string;
  /** Absent if the file has one set of weights, or the path names a key. */
  readonly choice?: WeightsChoice;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** All elements in row-major order, in an array of their dtype. @throws CheckpointError */
  read(name: string): Promise<TypedArray>;
  /** A tensor of a floating-point dtype as float32. @throws CheckpointError */
  readFloat32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export function bytesPerElement(dtype: Dtype): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/**
 * Reads a tensor of dtype F32, F16, BF16 or F64 as float32.
 * @throws CheckpointError if there is no such tensor, or it has another dtype
 */
export async function readFloat32(file: TensorFile, name: string): Promise<Float32Array> {
  const data = await file.read(name);
  if (data instanceof Float32Array) return data;
  if (data instanceof Float64Array) return Float32Array.from(data);
  const { dtype } = file.tensors.get(name)!;
  if (dtype === 'F16') return float16ToFloat32(data as Uint16Array);
  if (dtype === 'BF16') return bfloat16ToFloat32(data as Uint16Array);
  throw new CheckpointError(`${file.path}: ${name} has dtype ${dtype}, a floating-point dtype is needed`);
}

/**
 * Opens a file for reading.
 * @returns the handle and the size in bytes
 * @throws CheckpointError if it is missing, a folder or not readable
 */
export async function openRegularFile(path: string): Promise<{ handle: FileHandle; size: number }> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'no permission' : String(code);
    throw new CheckpointError(`cannot open ${path}: ${reason}; check the path`, { cause: error });
  }
  const stats = await handle.stat();
  if (stats.isFile()) return { handle, size: stats.size };
  await handle.close();
  throw new CheckpointError(`${path} is not a file; name a checkpoint file`);
}

/** Raw bfloat16 patterns to float32, of which they are the upper half. */
function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i] << 16;
  return new Float32Array(wide.buffer);
}

/** Raw patterns of IEEE 754 half precision to float32, exactly. */
function float16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  const wide = new Uint32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] & 0x8000) << 16;
    const exponent = (bits[i] >>> 10) & 0x1f;
    const fraction = bits[i] & 0x3ff;
    if (exponent === 0) {
      out[i] = (sign ? -fraction : fraction) * 2 ** -24; // zero or subnormal
      if (fraction === 0) wide[i] = sign;
    } else if (exponent === 0x1f) {
      wide[i] = sign | 0x7f800000 | (fraction << 13); // infinity or NaN
    } else {
      wide[i] = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
  }
  return out;
}
