import { type FileHandle, open } from 'node:fs/promises';
import { CheckpointError } from '../errors.js';
import type { TypedArray, TypedArrayConstructor } from '../files/bytes.js';
import { bfloat16ToFloat32, float16ToFloat32 } from './half.js';

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
  /** The elements in row-major order, or a function that gives them when their turn to be written comes. */
  readonly data: TypedArray | (() => TypedArray | Promise<TypedArray>);
}

/** Of several sets of weights in a file, by their keys, the one whose tensors are given, and the others. */
export interface WeightsChoice {
  readonly taken: string;
  readonly others: readonly string[];
}

/** An open file of named tensors, which are read one at a time. */
export interface TensorFile {
  readonly path: string;
  /** Absent where there is one set of weights, or where the path names the one. */
  readonly choice?: WeightsChoice;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** All elements in row-major order, in an array of their dtype. Throws CheckpointError. */
  read(name: string): Promise<TypedArray>;
  /** A tensor of a floating-point dtype as float32. Throws CheckpointError. */
  readFloat32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export function bytesPerElement(dtype: Dtype): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/**
 * Reads a tensor of dtype F32, F16, BF16 or F64 as float32.
 * @throws CheckpointError where there is no such tensor, or of another dtype
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
 * Opens a file for reading and hands over its size.
 * @throws CheckpointError where it is missing, a folder or not readable
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
