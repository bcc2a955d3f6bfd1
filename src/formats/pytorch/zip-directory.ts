import type { FileHandle } from 'node:fs/promises';
import { promisify } from 'node:util';
import { inflateRaw, type ZlibOptions } from 'node:zlib';
import { readFully } from '../../files/bytes.js';
import { damaged } from './damaged.js';

// The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3 and 4.5.3. PyTorch stores its
// entries without compression, so that an entry is a range of the file; other programs that touched it may deflate.

const inflate = promisify<Buffer, ZlibOptions, Buffer>(inflateRaw);

export interface ZipEntry {
  /** Where its local header begins, in the file. */
  readonly headerPosition: number;
  /** Of the content, in bytes. */
  readonly size: number;
  /** In the file, in bytes; the same unless it is deflated. */
  readonly packed: number;
  readonly deflated: boolean;
}

const LOCAL_HEADER = { signature: 0x04034b50, size: 30 };
const ENTRY = { signature: 0x02014b50, size: 46 };
const END = { signature: 0x06054b50, size: 22 };
const END64_LOCATOR = { signature: 0x07064b50, size: 20 };
const END64 = { signature: 0x06064b50, size: 56 };
const MAX_COMMENT_BYTES = 0xffff;
const ZIP64_FIELD = 1;
const [STORED, DEFLATED] = [0, 8];
/** Deflate makes nothing smaller than this. */
const MAX_DEFLATE_RATIO = 1032;
const ENCRYPTED = 1;

/** Enough for a hundred thousand entries. */
const MAX_DIRECTORY_BYTES = 2 ** 24;

async function read(path: string, handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  if (position < 0 || !(await readFully(handle, bytes, position)))
    throw damaged(path, 'its zip directory ends too early');
  return bytes;
}

const u64 = (bytes: Buffer, at: number) => Number(bytes.readBigUInt64LE(at));

/** Where the directory lies. */
async function findDirectory(path: string, handle: FileHandle, fileSize: number) {
  const length = Math.min(fileSize, END.size + MAX_COMMENT_BYTES + END64_LOCATOR.size);
  const tail = await read(path, handle, fileSize - length, length);
  let at = length - END.size;
  while (at >= 0 && tail.readUInt32LE(at) !== END.signature) at--;
  const commentLength = at < 0 ? 0 : tail.readUInt16LE(at + 20);
  if (at < 0 || at + END.size + commentLength > length)
    throw damaged(path, 'its zip directory is missing or cut, as at the end of a download that broke off');
  const locator = at - END64_LOCATOR.size;
  if (locator < 0 || tail.readUInt32LE(locator) !== END64_LOCATOR.signature)
    return { size: tail.readUInt32LE(at + 12), position: tail.readUInt32LE(at + 16) };
  const end64 = await read(path, handle, u64(tail, locator + 8), END64.size);
  if (end64.readUInt32LE(0) !== END64.signature) throw damaged(path, 'its zip directory is not sound');
  return { size: u64(end64, 40), position: u64(end64, 48) };
}

/** The sizes of an entry, from its extra field where 32 bits do not hold them. */
function wideSizes(bytes: Buffer, sizes: number[]): number[] {
  for (let at = 0; at + 4 <= bytes.length; ) {
    const [id, length] = [bytes.readUInt16LE(at), bytes.readUInt16LE(at + 2)];
    if (id === ZIP64_FIELD) {
      let next = at + 4;
      return sizes.map((size) => {
        if (size !== 0xffffffff || next + 8 > Math.min(at + 4 + length, bytes.length)) return size;
        next += 8;
        return u64(bytes, next - 8);
      });
    }
    at += 4 + length;
  }
  return sizes;
}

/**
 * The entries of a zip file by name; nothing but its directory is read.
 * @throws CheckpointError where the directory is not sound, or an entry is encrypted or larger than the file
 */
export async function readZipDirectory(
  path: string,
  handle: FileHandle,
  fileSize: number,
): Promise<Map<string, ZipEntry>> {
  const { position, size } = await findDirectory(path, handle, fileSize);
  if (position + size > fileSize || size > MAX_DIRECTORY_BYTES)
    throw damaged(path, `a zip directory of ${size} bytes in a file of ${fileSize}`);
  const bytes = await read(path, handle, position, size);
  const entries = new Map<string, ZipEntry>();
  for (let at = 0; at < size; ) {
    if (at + ENTRY.size > size || bytes.readUInt32LE(at) !== ENTRY.signature)
      throw damaged(path, 'its zip directory is not sound');
    const [nameEnd, extraLength, commentLength] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field));
    const start = at + ENTRY.size;
    const extra = start + nameEnd;
    const next = extra + extraLength + commentLength;
    if (next > size) throw damaged(path, 'its zip directory is not sound');
    const name = bytes.toString('utf8', start, extra);
    const [unpacked, packed, headerPosition] = wideSizes(
      bytes.subarray(extra, extra + extraLength),
      [24, 20, 42].map((field) => bytes.readUInt32LE(at + field)),
    );
    const flags = bytes.readUInt16LE(at + 8);
    const method = bytes.readUInt16LE(at + 10);
    const deflated = method === DEFLATED;
    if ((flags & ENCRYPTED) !== 0 || (method !== STORED && !deflated))
      throw damaged(path, `its entry ${name} is encrypted, or compressed by another method than deflate`);
    if (deflated ? unpacked > MAX_DEFLATE_RATIO * packed : unpacked !== packed)
      throw damaged(path, `its entry ${name} claims ${unpacked} bytes of ${packed} in the file`);
    if (headerPosition + LOCAL_HEADER.size + packed > fileSize)
      throw damaged(path, `its entry ${name} claims ${packed} bytes in a file of ${fileSize}`);
    if (entries.has(name)) throw damaged(path, `it has two entries ${name}`);
    entries.set(name, { headerPosition, size: unpacked, packed, deflated });
    at = next;
  }
  return entries;
}

/** Where an entry's content begins in the file. @throws CheckpointError where its header is not sound */
async function contentPosition(path: string, handle: FileHandle, entry: ZipEntry): Promise<number> {
  const header = await read(path, handle, entry.headerPosition, LOCAL_HEADER.size);
  if (header.readUInt32LE(0) !== LOCAL_HEADER.signature) throw damaged(path, 'an entry has no header');
  return entry.headerPosition + LOCAL_HEADER.size + header.readUInt16LE(26) + header.readUInt16LE(28);
}

/**
 * A function that fills an array from byte `start` of an entry on: of a stored entry straight from the file; a deflated
 * one is unpacked whole and kept until the next.
 * @throws CheckpointError where the entry ends before, or does not unpack to its size
 */
export function entryReader(path: string, handle: FileHandle) {
  let last: { entry: ZipEntry; content: Buffer } | undefined;
  async function unpacked(entry: ZipEntry): Promise<Buffer> {
    if (last?.entry === entry) return last.content;
    last = undefined;
    const packed = await read(path, handle, await contentPosition(path, handle, entry), entry.packed);
    const content = await inflate(packed, { maxOutputLength: Math.max(entry.size, 1) }).catch((cause) => {
      throw damaged(path, 'an entry does not unpack', { cause });
    });
    if (content.length !== entry.size)
      throw damaged(path, `an entry unpacks to ${content.length} bytes, not ${entry.size}`);
    last = { entry, content };
    return content;
  }
  return async (entry: ZipEntry, start: number, into: Uint8Array): Promise<void> => {
    if (start + into.length > entry.size) throw damaged(path, 'an entry ends too early');
    if (entry.deflated) into.set((await unpacked(entry)).subarray(start, start + into.length));
    else if (!(await readFully(handle, into, (await contentPosition(path, handle, entry)) + start)))
      throw damaged(path, 'an entry ends too early');
  };
}
