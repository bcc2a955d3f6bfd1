import { CheckpointError } from '../../errors.js';
import { sizeOf } from '../../shapes.js';
import { bytesPerElement, type Dtype } from '../tensor-file.js';
import { damaged } from './archive.js';
import { PickleGlobal, PickleObject, type PickleValue, type PickleWorld } from './unpickle.js';

/** PyTorch's storage class of each dtype. */
export const STORAGE_CLASSES = {
  F64: 'DoubleStorage',
  F32: 'FloatStorage',
  F16: 'HalfStorage',
  BF16: 'BFloat16Storage',
  I64: 'LongStorage',
  I32: 'IntStorage',
  I16: 'ShortStorage',
  I8: 'CharStorage',
  U8: 'ByteStorage',
  BOOL: 'BoolStorage',
} satisfies Partial<Record<Dtype, string>>;

const DTYPES = new Map(
  Object.entries(STORAGE_CLASSES).map(([dtype, name]) => [`torch.${name}`, dtype as Dtype]),
);

/** Storages whose dtype is given with each tensor; their size is in bytes. */
const UNTYPED_STORAGES = ['torch.storage.UntypedStorage', 'torch.UntypedStorage'];

/** PyTorch's names of dtypes, which `_rebuild_tensor_v3` gets for dtypes without a storage class. */
const NAMED_DTYPES = new Map<string, Dtype>([
  ['torch.uint16', 'U16'],
  ['torch.uint32', 'U32'],
  ['torch.float64', 'F64'],
  ['torch.float32', 'F32'],
  ['torch.float16', 'F16'],
  ['torch.bfloat16', 'BF16'],
  ['torch.int64', 'I64'],
  ['torch.int32', 'I32'],
  ['torch.int16', 'I16'],
  ['torch.int8', 'I8'],
  ['torch.uint8', 'U8'],
  ['torch.bool', 'BOOL'],
]);

/** A range of elements in the file, found there by `key`; `start` and `length` count elements. */
export class Storage extends PickleObject {
  constructor(
    readonly key: string,
    readonly dtype: Dtype,
    readonly length: number,
    readonly start = 0,
  ) {
    super();
  }
}

/** A view of a storage; offset and strides count elements. */
export class Tensor extends PickleObject {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    super();
  }

  get dtype(): Dtype {
    return this.storage.dtype;
  }
}

/** Most elements of a view that repeats a storage, as `expand` creates. */
const MAX_REPEATED = 2 ** 24;

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isSizes(value: PickleValue): value is number[] {
  return Array.isArray(value) && value.length <= 64 && value.every(isSize);
}

/** A whole storage in the file. */
export interface StoredStorage {
  readonly dtype: Dtype;
  /** In elements. */
  readonly length: number;
}

/**
 * The names that a file of tensors may import, and the persistent ids of its storages. The storages that the pickle refers to
 * are collected in `storages`.
 */
export function tensorWorld(path: string, storages: Map<string, StoredStorage>): PickleWorld {
  function tensor([storage, offset, shape, strides]: PickleValue[]): Tensor {
    if (!(storage instanceof Storage) || !isSize(offset) || !isSizes(shape) || !isSizes(strides))
      throw damaged(path, 'a tensor has no valid storage, offset, shape and strides');
    const size = sizeOf(shape);
    const last = shape.reduce((at, n, axis) => at + (n - 1) * (strides[axis] ?? Number.NaN), offset);
    const within = size === 0 ? shape.length === strides.length : last < storage.length;
    if (!within)
      throw damaged(path, `a tensor (${shape.join(', ')}) lies outside of its storage of ${storage.length}`);
    if (size > storage.length && size > MAX_REPEATED)
      throw damaged(path, `a tensor (${shape.join(', ')}) repeats a storage of ${storage.length}`);
    return new Tensor(storage, offset, shape, strides);
  }

  /** The same storage with elements of another dtype: the length of an untyped storage is in bytes. */
  function typed(storage: PickleValue, dtype: PickleValue): Storage {
    const named = dtype instanceof PickleGlobal ? NAMED_DTYPES.get(dtype.name) : undefined;
    if (!(storage instanceof Storage) || !named)
      throw damaged(path, 'a tensor has an unknown storage or dtype');
    const ratio = bytesPerElement(storage.dtype) / bytesPerElement(named);
    const [start, length] = [storage.start * ratio, storage.length * ratio];
    if (!Number.isInteger(start) || !Number.isInteger(length))
      throw damaged(path, `a storage of ${storage.length} elements is not a whole number of ${named}`);
    return new Storage(storage.key, named, length, start);
  }

  const calls: Record<string, (args: PickleValue[]) => PickleValue> = {
    'collections.OrderedDict': (args) => {
      const [pairs = []] = args;
      if (args.length > 1 || !Array.isArray(pairs) || !pairs.every(Array.isArray))
        throw damaged(path, 'an OrderedDict is not made of a list of pairs');
      return new Map(pairs.map((pair) => [pair[0], pair[1]]));
    },
    'torch._utils._rebuild_tensor': tensor,
    'torch._utils._rebuild_tensor_v2': tensor,
    'torch._utils._rebuild_tensor_v3': ([storage, offset, shape, strides, , , dtype]) =>
      tensor([typed(storage, dtype), offset, shape, strides]),
    'torch._utils._rebuild_parameter': ([data]) => {
      if (!(data instanceof Tensor)) throw damaged(path, 'a parameter is not made of a tensor');
      return data;
    },
    'torch.Size': ([sizes]) => {
      if (!isSizes(sizes)) throw damaged(path, 'a torch.Size has no valid sizes');
      return sizes;
    },
  };

  return {
    global(name) {
      if (Object.hasOwn(calls, name)) return new PickleGlobal(name, calls[name]);
      if (DTYPES.has(name) || NAMED_DTYPES.has(name) || UNTYPED_STORAGES.includes(name))
        return new PickleGlobal(name);
      throw new CheckpointError(
        `${path} wants to import ${name.slice(0, 120)}, which is refused because it could run code; if you trust the file, load it with PyTorch and save only its state dict`,
      );
    },
    persistent(id) {
      const [kind, type, key, , length, view] = Array.isArray(id) ? id : [];
      const name = type instanceof PickleGlobal ? type.name : '';
      const dtype = UNTYPED_STORAGES.includes(name) ? 'U8' : DTYPES.get(name);
      if (kind !== 'storage' || !dtype || typeof key !== 'string' || !isSize(length))
        throw damaged(path, 'a storage has no valid type, key and size');
      if (!Number.isSafeInteger(length * bytesPerElement(dtype)))
        throw damaged(path, `a storage of ${length} elements`);
      const known = storages.get(key) ?? { dtype, length };
      if (known.dtype !== dtype || known.length !== length)
        throw damaged(path, `storage ${key} has two types or sizes`);
      storages.set(key, known);
      if (!Array.isArray(view)) return new Storage(key, dtype, length);
      // In files of PyTorch 0.3 and before, a storage can be a part of another.
      const [, start, size] = view;
      if (!isSize(start) || !isSize(size) || start + size > length)
        throw damaged(path, 'a part of a storage lies outside of it');
      return new Storage(key, dtype, size, start);
    },
  };
}
