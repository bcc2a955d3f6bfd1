import type { FileHandle } from 'node:fs/promises';
import { bytesPerElement } from '../tensor-file.js';
import { type Archive, MAX_PICKLE_BYTES, unpickleAt } from './archive.js';
import { damaged } from './damaged.js';
import { type StoredStorage, tensorWorld } from './values.js';
import { entryReader, readZipDirectory } from './zip-directory.js';

const PICKLE = 'data.pkl';
const MAX_NOTE_BYTES = 2 ** 20;

/** Where alitok keeps metadata; PyTorch reads past it. */
export const METADATA = 'alitok.json';

/**
 * The format of PyTorch since 1.6: a zip of `NAME/data.pkl`, `NAME/data/KEY` for each storage, and notes.
 * @throws CheckpointError where it is not sound
 */
export async function openZipArchive(path: string, handle: FileHandle, fileSize: number): Promise<Archive> {
  const entries = await readZipDirectory(path, handle, fileSize);
  const readEntry = entryReader(path, handle);
  const pickle = [...entries.keys()].find(
    (name) => name.split('/').length === 2 && name.endsWith(`/${PICKLE}`),
  );
  if (pickle === undefined) throw damaged(path, `it is a zip without a ${PICKLE}`);
  const prefix = pickle.slice(0, -PICKLE.length);

  async function content(name: string, limit: number): Promise<Buffer | undefined> {
    const entry = entries.get(prefix + name);
    if (!entry) return undefined;
    if (entry.size > limit) throw damaged(path, `its entry ${name} has ${entry.size} bytes`);
    const bytes = Buffer.alloc(entry.size);
    await readEntry(entry, 0, bytes);
    return bytes;
  }

  if ((await content('byteorder', MAX_NOTE_BYTES))?.toString() === 'big')
    throw damaged(path, 'it was written on a big-endian machine');
  const storages = new Map<string, StoredStorage>();
  const bytes = (await content(PICKLE, MAX_PICKLE_BYTES))!;
  const { value } = unpickleAt(path, bytes, 0, tensorWorld(path, storages));
  for (const [key, { dtype, length }] of storages) {
    const size = entries.get(`${prefix}data/${key}`)?.size;
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
    // Said below.
  }
  throw damaged(path, `its ${METADATA} is not sound`);
}
