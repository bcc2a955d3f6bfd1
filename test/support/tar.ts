const BLOCK = 512;

export interface TarEntry {
  path: string;
  content?: Uint8Array | string;
  /** The type's character; a plain file if absent. */
  type?: string;
  /** The value of the size field if it is not the content's length: a number, or its bytes. */
  size?: number | Uint8Array;
}

const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;

/** One POSIX header with a valid checksum. */
export function tarHeader({ path, content = '', type = '0', size }: TarEntry): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(path, 0, 100);
  block.write(octal(0o644, 7), 100);
  if (typeof size === 'object') block.set(size, 124);
  else block.write(octal(size ?? Buffer.byteLength(content), 11), 124);
  block.write(type, 156, 'latin1');
  block.write('ustar\x0000', 257);
  block.fill(' ', 148, 156);
  block.write(
    `${octal(
      block.reduce((a, b) => a + b, 0),
      6,
    )} `,
    148,
  );
  return block;
}

/** A header, and the content padded to whole blocks. */
export function tarMember(entry: TarEntry): Buffer {
  const content = Buffer.from(entry.content ?? '');
  const padding = Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK);
  return Buffer.concat([tarHeader(entry), content, padding]);
}

export const TAR_END = Buffer.alloc(2 * BLOCK);

/** A whole tar file. */
export const tarOf = (...entries: TarEntry[]): Buffer => Buffer.concat([...entries.map(tarMember), TAR_END]);

/** A pax header with one attribute. */
export function paxHeader(key: string, value: string): TarEntry {
  const rest = ` ${key}=${value}\n`;
  let length = Buffer.byteLength(rest) + 1;
  while (String(length).length + Buffer.byteLength(rest) !== length) length++;
  return { path: 'pax', type: 'x', content: `${length}${rest}` };
}
