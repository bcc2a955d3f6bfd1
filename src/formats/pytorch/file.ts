import type { FileHandle } from 'node:fs/promises';
import { CheckpointError } from '../../errors.js';
import { readFully, type TypedArray } from '../../files/bytes.js';
import { sizeOf } from '../../shapes.js';
import {
  ARRAYS,
  bytesPerElement,
  openRegularFile,
  readFloat32,
  type TensorFile,
  type WeightsChoice,
} from '../tensor-file.js';
import { type Archive, damaged } from './archive.js';
import { stateDict } from './state-dict.js';
import { openStreamArchive } from './stream-archive.js';
import type { Tensor } from './values.js';
import { openZipArchive } from './zip-archive.js';

const ZIP_START = Buffer.from('PK\x03\x04');

function isZip(start: Buffer): boolean {
  return start.subarray(0, ZIP_START.length).equals(ZIP_START);
}

/** Whether a file is a zip or a pickle, by its first bytes. A safetensors file has its JSON at byte 8. */
export function startsAsPytorch(start: Buffer): boolean {
  const pickle = start[0] === 0x80 && !(start[7] === 0 && start[8] === 0x7b);
  return isZip(start) || pickle;
}

/** An open PyTorch file. Only the names, shapes and positions of its tensors are in memory. */
export class PytorchFile implements TensorFile {
  constructor(
    readonly path: string,
    readonly tensors: ReadonlyMap<string, Tensor>,
    private readonly archive: Archive,
    private readonly handle: FileHandle,
    readonly choice?: WeightsChoice,
  ) {}

  get metadata(): Readonly<Record<string, string>> {
    return this.archive.metadata;
  }

  async read(name: string): Promise<TypedArray> {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new CheckpointError(`${this.path} has no tensor ${name}; is it the right file?`);
    const { dtype, storage, offset, shape, strides } = tensor;
    const size = sizeOf(shape);
    if (size === 0) return new ARRAYS[dtype](new ArrayBuffer(0));
    const span = 1 + shape.reduce((last, n, axis) => last + (n - 1) * strides[axis], 0);
    const bytes = new Uint8Array(span * bytesPerElement(dtype));
    await this.archive.read(storage.key, (storage.start + offset) * bytesPerElement(dtype), bytes);
    const elements = new ARRAYS[dtype](bytes.buffer);
    return isRowMajor(tensor) ? elements : inRowMajorOrder(elements, tensor);
  }

  readFloat32(name: string): Promise<Float32Array> {
    return readFloat32(this, name);
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

function isRowMajor({ shape, strides }: Tensor): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis];
  }
  return true;
}

/** The elements of a view in row-major order, from the span of its storage that it covers. */
function inRowMajorOrder(span: TypedArray, { dtype, shape, strides }: Tensor): TypedArray {
  const sorted = new ARRAYS[dtype](new ArrayBuffer(sizeOf(shape) * bytesPerElement(dtype)));
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < sorted.length; to++) {
    sorted[to] = span[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= shape[axis] * strides[axis];
      index[axis] = 0;
    }
  }
  return sorted;
}

/**
 * Opens a file written by `torch.save`, in the zip format or the older stream format, and finds the model's tensors, or
 * those under `key`. No code of the file runs, and no tensor is read.
 * @throws CheckpointError if it is missing, not valid, imports a name that is not allowed, or has no state dict
 */
export async function openPytorch(path: string, key?: string): Promise<PytorchFile> {
  const { handle, size } = await openRegularFile(path);
  try {
    const start = Buffer.alloc(Math.min(size, ZIP_START.length));
    if (!(await readFully(handle, start, 0))) throw damaged(path, 'it ends too early');
    const openArchive = isZip(start) ? openZipArchive : openStreamArchive;
    const archive = await openArchive(path, handle, size);
    const { tensors, choice } = stateDict(path, archive.value, key);
    return new PytorchFile(path, tensors, archive, handle, choice);
  } catch (error) {
    await handle.close();
    throw error;
  }
}
