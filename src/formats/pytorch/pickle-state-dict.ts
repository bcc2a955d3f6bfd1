import { CheckpointError } from '../../errors.js';
import { sizeOf } from '../../files/bytes.js';
import type { Dtype, TensorInfo } from '../tensor-file.js';
import { STORAGE_CLASSES } from './values.js';

const INT32_MAX = 2 ** 31 - 1;

const GLOBAL = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`);
const ORDERED_DICT = Buffer.concat([GLOBAL('collections', 'OrderedDict'), Buffer.from(')R')]);
const TENSOR = GLOBAL('torch._utils', '_rebuild_tensor_v2');

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([Buffer.from('X'), length, bytes]);
}

function integer(value: number): Buffer {
  const bytes = Buffer.alloc(value <= INT32_MAX ? 5 : 10);
  if (value <= INT32_MAX) {
    bytes.write('J');
    bytes.writeInt32LE(value, 1);
  } else {
    bytes.write('\x8a\x08', 'latin1');
    bytes.writeBigInt64LE(BigInt(value), 2);
  }
  return bytes;
}

function tuple(parts: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from('('), ...parts, Buffer.from('t')]);
}

function rowMajorStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
}

/** PyTorch's storage class of a dtype. @throws CheckpointError for dtypes without one */
function storageClass(dtype: Dtype, name: string): Buffer {
  if (!Object.hasOwn(STORAGE_CLASSES, dtype))
    throw new CheckpointError(
      `${name} has dtype ${dtype}, which PyTorch files cannot hold; take safetensors`,
    );
  return GLOBAL('torch', STORAGE_CLASSES[dtype as keyof typeof STORAGE_CLASSES]);
}

/**
 * The pickle (protocol 2) of an OrderedDict of row-major tensors, each on a storage of its own, whose key is its number.
 * @throws CheckpointError for a dtype that PyTorch lacks
 */
export function pickleStateDict(tensors: readonly (TensorInfo & { name: string })[]): Buffer {
  const items = tensors.map(({ name, dtype, shape }, i) => {
    const size = sizeOf(shape);
    const id = tuple([text('storage'), storageClass(dtype, name), text(`${i}`), text('cpu'), integer(size)]);
    const args = tuple([
      Buffer.concat([id, Buffer.from('Q')]),
      integer(0),
      tuple(shape.map(integer)),
      tuple(rowMajorStrides(shape).map(integer)),
      Buffer.from('\x89', 'latin1'), // requires no gradient
      ORDERED_DICT, // has no hooks
    ]);
    return Buffer.concat([text(name), TENSOR, args, Buffer.from('R')]);
  });
  return Buffer.concat([
    Buffer.from('\x80\x02', 'latin1'),
    ORDERED_DICT,
    Buffer.from('('),
    ...items,
    Buffer.from('u.'),
  ]);
}
