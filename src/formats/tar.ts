import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { DataError } from '../errors.js';

// The formats: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html (ustar and pax) and
// https://www.gnu.org/software/tar/manual/html_node/Standard.html (GNU). Headers of one block, each followed by the member's
// bytes, padded to whole blocks; two blocks of zeros end the file. Written here because packages stream the whole file, and
// images in random order need only the headers of perhaps a hundred gigabytes. The header classes of npm's `tar` would not
// do either: they silently skip damaged pax records and those with line breaks in a name, drop the record that marks a file
// as sparse, and accept numbers with trailing garbage.

const BLOCK = 512;

/** Bytes to read at once: enough for the headers of several small members. */
const WINDOW = 4096;

/** The longest list of extended attributes, or long name, that is accepted. */
const MAX_EXTENSION = 2 ** 20;

/** How many bytes behind the end are checked to be zeros. */
const MAX_PADDING = 2 ** 20;

export type MemberType = 'file' | 'folder' | 'link';

/** A file, folder or link in a tar file. */
export interface TarMember {
  /** Without a leading `./` and a trailing `/`. */
  readonly path: string;
  readonly type: MemberType;
  /** Of its first byte in the tar file. */
  readonly position: number;
  /** In bytes; 0 for folders and links. */
  readonly size: number;
}

const TYPES: Record<string, MemberType | 'other'> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file', // contiguous
  '1': 'link',
  '2': 'link',
  '3': 'other', // devices and pipes, which have no content
  '4': 'other',
  '5': 'folder',
  '6': 'other',
  V: 'other', // volume label
};

/** Properties of a member from the extension headers before it. */
interface Extension {
  path?: string;
  size?: number;
}

/** An open tar file. Only what was requested is in memory. */
export class TarFile {
  private readonly descriptor: number;
  private readonly fileSize: number;
  private readonly window = Buffer.alloc(WINDOW);
  private windowStart = 0;
  private windowEnd = 0;

  /** @throws DataError if the file cannot be read */
  constructor(readonly path: string) {
    try {
      this.descriptor = openSync(path, 'r');
    } catch (error) {
      throw unreadable(path, error);
    }
    this.fileSize = fstatSync(this.descriptor).size;
  }

  close(): void {
    closeSync(this.descriptor);
  }

  /**
   * All members in order, found from header to header. Reads are synchronous, because each depends on the one before and
   * asynchronous ones would take ten times as long.
   * @throws DataError, when it gets there, if the file is truncated, damaged or has members of an unsupported type
   */
  *members(): Generator<TarMember> {
    let extension: Extension | undefined;
    for (let position = 0; ; ) {
      if (position + BLOCK > this.fileSize) throw this.damaged('it ends without an end mark: it is cut off');
      const block = this.block(position);
      if (block[0] === 0 && block.every((byte) => byte === 0)) {
        if (extension) throw this.damaged(`the header at byte ${position} lacks its member`);
        return this.checkEnd(position);
      }
      this.checkSum(block, position);
      const code = String.fromCharCode(block[156]);
      const size = extension?.size ?? this.number(block, 124, 12, position);
      const start = position + BLOCK;

      if (code === 'x' || code === 'X' || code === 'g' || code === 'L' || code === 'K') {
        const length = this.number(block, 124, 12, position);
        if (length > MAX_EXTENSION)
          throw this.damaged(`the header at byte ${position} is ${length} bytes long`);
        const bytes = this.read(start, length, `the header at byte ${position}`);
        if (code === 'L') extension = { ...extension, path: untilNul(bytes) };
        else if (code !== 'K') {
          const attributes = this.attributes(bytes, position);
          if (code === 'g' && (attributes.path ?? attributes.size) !== undefined)
            throw this.damaged(`the header at byte ${position} gives all members one path or size`);
          if (code !== 'g') extension = { ...extension, ...attributes };
        }
        position = start + padded(length);
        continue;
      }

      const type = Object.hasOwn(TYPES, code) ? TYPES[code] : undefined;
      const path = extension?.path ?? headerPath(block);
      if (type === undefined)
        throw this.damaged(`${path} is of type ${code}, which is not supported; pack it as a plain file`);
      // Old tars mark folders only by their name.
      const kind = type === 'file' && path.endsWith('/') ? 'folder' : type;
      const length = kind === 'file' ? size : 0;
      if (start + length > this.fileSize)
        throw this.damaged(
          `${path}, ${length} bytes at byte ${start}, goes beyond its end at ${this.fileSize}: it is cut off or damaged`,
        );
      if (kind !== 'other') yield { path: plain(path), type: kind, position: start, size: length };
      extension = undefined;
      position = start + padded(length);
    }
  }

  /** The bytes of a small member. @throws DataError if the file ends before */
  contents({ position, size, path }: TarMember): Buffer {
    return this.read(position, size, path);
  }

  /** The block at `position`; valid until the next call. */
  private block(position: number): Buffer {
    if (position < this.windowStart || position + BLOCK > this.windowEnd) {
      this.windowStart = position;
      this.windowEnd = position + this.fill(this.window, position);
      if (position + BLOCK > this.windowEnd) throw this.damaged('it became shorter while it was read');
    }
    const start = position - this.windowStart;
    return this.window.subarray(start, start + BLOCK);
  }

  private read(position: number, length: number, what: string): Buffer {
    if (position + length > this.fileSize)
      throw this.damaged(`${what} goes beyond its end: it is cut off or damaged`);
    if (position >= this.windowStart && position + length <= this.windowEnd) {
      const start = position - this.windowStart;
      return Buffer.from(this.window.subarray(start, start + length));
    }
    const bytes = Buffer.alloc(length);
    if (this.fill(bytes, position) < length) throw this.damaged('it became shorter while it was read');
    return bytes;
  }

  private fill(into: Buffer, position: number): number {
    let done = 0;
    try {
      while (done < into.length) {
        const count = readSync(this.descriptor, into, done, into.length - done, position + done);
        if (count === 0) break;
        done += count;
      }
    } catch (error) {
      throw unreadable(this.path, error);
    }
    return done;
  }

  /** Checks the sum of a header's bytes, in which the checksum itself counts as spaces. */
  private checkSum(block: Buffer, position: number): void {
    let sum = 8 * 0x20;
    for (let i = 0; i < BLOCK; i++) sum += block[i];
    for (let i = 148; i < 156; i++) sum -= block[i];
    if (sum !== this.number(block, 148, 8, position)) throw this.noHeader(position);
  }

  /** Octal digits between spaces and zeros or, in GNU's format, a set first bit and a binary number. */
  private number(block: Buffer, start: number, length: number, position: number): number {
    const binary = block[start] === 0x80;
    const end = start + length;
    let value = 0;
    let i = binary ? start + 1 : start;
    if (binary) for (; i < end; i++) value = value * 256 + block[i];
    else {
      while (i < end && block[i] === 0x20) i++;
      for (; i < end && block[i] >= 0x30 && block[i] < 0x38; i++) value = value * 8 + block[i] - 0x30;
      while (i < end && (block[i] === 0 || block[i] === 0x20)) i++;
    }
    if (i < end || !Number.isSafeInteger(value)) throw this.noHeader(position);
    return value;
  }

  /** Path and size from pax attributes: lines `LENGTH KEY=VALUE\n`, where LENGTH counts the whole line. */
  private attributes(bytes: Buffer, position: number): Extension {
    const extension: Extension = {};
    for (let start = 0; start < bytes.length; ) {
      const space = bytes.indexOf(' ', start);
      const digits = space < 0 ? '' : bytes.toString('latin1', start, space);
      const end = start + (/^\d{1,7}$/.test(digits) ? Number(digits) : 0);
      const equals = bytes.indexOf('=', space);
      if (end <= space || end > bytes.length || equals < 0 || equals >= end || bytes[end - 1] !== 0x0a)
        throw this.damaged(`the attributes at byte ${position} are not valid`);
      const key = bytes.toString('utf8', space + 1, equals);
      const value = bytes.toString('utf8', equals + 1, end - 1);
      if (key === 'path') extension.path = value;
      if (key === 'size') {
        extension.size = /^\d+$/.test(value) ? Number(value) : Number.NaN;
        if (!Number.isSafeInteger(extension.size))
          throw this.damaged(`the attributes at byte ${position} have the size ${value}`);
      }
      if (key.startsWith('GNU.sparse.'))
        throw this.damaged(
          `the member at byte ${position} is sparse, which is not supported; pack it as a plain file`,
        );
      start = end;
    }
    return extension;
  }

  /** Only zeros may follow the end mark: an appended tar would be ignored. */
  private checkEnd(position: number): void {
    const rest = Buffer.alloc(Math.min(this.fileSize - position, MAX_PADDING));
    const length = this.fill(rest, position);
    if (rest.subarray(0, length).some((byte) => byte !== 0))
      throw this.damaged(`something follows its end at byte ${position}; give each tar file separately`);
  }

  private noHeader(position: number): DataError {
    return this.damaged(
      position === 0 ? 'it does not begin as one' : `there is no valid header at byte ${position}`,
    );
  }

  private damaged(what: string): DataError {
    return new DataError(`${this.path} is not a valid tar file: ${what}; fetch or pack it again`);
  }
}

function unreadable(path: string, error: unknown): DataError {
  const { code } = error as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'no permission' : code;
  return new DataError(`cannot read the tar file ${path}: ${reason}; check the path`, { cause: error });
}

const padded = (size: number) => Math.ceil(size / BLOCK) * BLOCK;

function untilNul(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

/** The name (100 bytes), after POSIX's prefix (155 bytes); GNU's format uses that place for other fields. */
function headerPath(block: Buffer): string {
  const name = untilNul(block.subarray(0, 100));
  const posix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = posix ? untilNul(block.subarray(345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

const plain = (path: string) =>
  /^[./]|\/$/.test(path) ? path.replace(/^(\.?\/)+/, '').replace(/\/+$/, '') : path;
