import type { FileHandle } from 'node:fs/promises';
import { bytesPerElement } from '../tensor-file.js';
import { ZipArchive, type ZipEntry } from '../zip.js';
import { type Archive, damaged, MAX_PICKLE_BYTES, unpickleAt } from './archive.js';
import { type StoredStorage, tensorWorld } from './values.js';

const PICKLE = 'data.pkl';
const MAX_NOTE_BYTES = 2 ** 20;

/** Where alitok keeps metadata; PyTorch ignores it. */
export const METADATA = 'alitok.json';

/**
 * The format of PyTorch since 1.6: a zip of `NAME/data.pkl`, `NAME/data/KEY` for each storage, and small notes.
 * @throws CheckpointError if it is not valid
 */
export async function openZipArchive(path: string, handle: FileHandle, fileSize: number): Promise<Archive> {
  const naming = <T>(result: Promise<T>): Promise<T> =>
    result.catch((error: Error) => {
      throw damaged(path, error.message, { cause: error });
    });
  const zip = await naming(ZipArchive.open(handle, fileSize));
  const { entries } = zip;
  const readEntry = (entry: ZipEntry, start: number, into: Uint8Array) =>
    naming(zip.read(entry, start, into));
  const pickle = [...entries.keys()].find(
    (name) => name.split('/').length === 2 && name.endsWith(`/${PICKLE}`),
  );
  if (pickle === undefined) throw damaged(path, `it is a zip without a ${PICKLE}`);
  const prefix = pickle.slice(0, -PICKLE.length);

  async function content(name: string, limit: number): Promise<Buffer | undefined> {
    const entry = entries.get(prefix + name);
    if (!entry) return undefined;
    const size = entry.uncompressedSize;
    if (size > limit) throw damaged(path, `its entry ${name} has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    await readEntry(entry, 0, bytes);
    return bytes;
  }

  if ((await content('byteorder', MAX_NOTE_BYTES))?.toString() === 'big')
    throw damaged(path, 'it was written on a big-endian machine');
  const storages = new Map<string, StoredStorage>();
  const bytes = (await content(PICKLE, MAX_PICKLE_BYTES))!;
  const { value } = unpickleAt(path, bytes, 0, tensorWorld(path, storages));
  for (const [key, { dtype, length }] of storages) {
    const size = entries.get(`${prefix}data/${key}`)?.uncompressedSize;
    if (size === undefined) throw damaged(path, `storage ${key} is missing`);
    if (size !== length * bytesPerElement(dtype))
      throw damaged(
        path,
        `storage ${key} should have ${length * bytesPerElement(dtype)} bytes and has ${size}`,
      );
  }
  const note = await content(METADATA, MAX_NOTE_BYTES);
  return {
    value,
    metadata: note ? parseMetadata(path, note.toString()) : {},
    read: (key, start, into) => readEntry(entries.get(`${prefix}data/${key}`)!, start, into),
  };
}

function parseMetadata(path: string, text: string): Record<string, string> {
  try {
    const value: unknown = JSON.parse(text);
    if (
      typeof value === 'object' &&
      value !== null &&
      Object.values(value).every((v) => typeof v === 'string')
    )
      return value as Record<string, string>;
  } catch {
    // Reported below.
  }
  throw damaged(path, `its ${METADATA} is not valid`);
}
