import type { FileHandle } from 'node:fs/promises';
import { readFully } from '../../files/bytes.js';
import { bytesPerElement } from '../tensor-file.js';
import { type Archive, damaged, MAX_PICKLE_BYTES, unpickleAt } from './archive.js';
import type { PickleValue } from './unpickle.js';
import { type StoredStorage, tensorWorld } from './values.js';

const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL = 1001;

/**
 * The format of PyTorch before 1.6: five pickles (magic number, protocol, machine, value, keys of the storages), then for
 * each key the number of elements (8 bytes) and the elements.
 * @throws CheckpointError if it is not valid
 */
export async function openStreamArchive(
  path: string,
  handle: FileHandle,
  fileSize: number,
): Promise<Archive> {
  const bytes = Buffer.alloc(Math.min(fileSize, MAX_PICKLE_BYTES));
  if (!(await readFully(handle, bytes, 0))) throw damaged(path, 'it ends too early');
  const storages = new Map<string, StoredStorage>();
  const world = tensorWorld(path, storages);
  let end = 0;
  const next = (): PickleValue => {
    const read = unpickleAt(path, bytes, end, world);
    end = read.end;
    return read.value;
  };
  if (next() !== MAGIC) throw damaged(path, 'its magic number is wrong');
  if (next() !== PROTOCOL) throw damaged(path, `its protocol is not ${PROTOCOL}`);
  const machine = next();
  if (!(machine instanceof Map) || machine.get('little_endian') !== true)
    throw damaged(path, 'it was written on a big-endian machine');
  const value = next();
  const keys = next();
  if (!Array.isArray(keys)) throw damaged(path, 'it has no list of storages');

  const positions = new Map<string, number>();
  const count = Buffer.alloc(8);
  for (const key of keys) {
    const storage = storages.get(key as string);
    if (!storage || positions.has(key as string))
      throw damaged(path, 'its list of storages does not match its tensors');
    if (!(await readFully(handle, count, end))) throw damaged(path, 'it ends too early');
    const length = Number(count.readBigInt64LE());
    if (length !== storage.length)
      throw damaged(path, `storage ${key} should have ${storage.length} elements and has ${length}`);
    positions.set(key as string, end + 8);
    end += 8 + length * bytesPerElement(storage.dtype);
    if (end > fileSize) throw damaged(path, 'it ends too early');
  }
  for (const key of storages.keys())
    if (!positions.has(key)) throw damaged(path, `storage ${key} is missing`);
  return {
    value,
    metadata: {},
    async read(key, start, into) {
      if (!(await readFully(handle, into, positions.get(key)! + start)))
        throw damaged(path, 'it ends too early');
    },
  };
}
