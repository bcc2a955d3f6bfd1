import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import crc32c from 'crc-32/crc32c.js';

/** The records of an event file; throws if a checksum is wrong. A truncated record, as after a crash, ends the file. */
export function records(file: Buffer): Buffer[] {
  const checked = (at: number, data: Buffer) => {
    const rotated = (file.readUInt32LE(at) - 0xa282ead8) >>> 0;
    const crc = (rotated >>> 17) | (rotated << 15) | 0;
    if (crc !== crc32c.buf(data)) throw new Error(`the checksum at ${at} is wrong`);
    return data;
  };
  const found: Buffer[] = [];
  for (let at = 0; at + 12 <= file.length; ) {
    const length = Number(checked(at + 8, file.subarray(at, at + 8)).readBigUInt64LE());
    const end = at + 12 + length;
    if (end + 4 > file.length) break;
    found.push(checked(end, file.subarray(at + 12, end)));
    at = end + 4;
  }
  return found;
}

/** The fields of a message by number, each a list; nested messages stay bytes. */
export function fields(message: Uint8Array): Map<number, unknown[]> {
  const reader = new BinaryReader(message);
  const read: Record<number, () => unknown> = {
    [WireType.Varint]: () => Number(reader.int64()),
    [WireType.Bit64]: () => reader.double(),
    [WireType.Bit32]: () => reader.float(),
    [WireType.LengthDelimited]: () => reader.bytes(),
  };
  const found = new Map<number, unknown[]>();
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    found.set(field, [...(found.get(field) ?? []), read[type]()]);
  }
  return found;
}

/** One value of a summary: its step, tag, and all other fields. */
export interface EventValue {
  step: number;
  tag: string;
  value: Map<number, unknown[]>;
}

/** All values that TensorBoard shows of a folder: the start of a session drops values of its step and later. */
export async function readEvents(folder: string): Promise<EventValue[]> {
  let found: EventValue[] = [];
  for (const name of (await readdir(folder)).sort())
    for (const event of records(await readFile(join(folder, name))).map(fields)) {
      const step = Number(event.get(2)?.[0] ?? 0);
      if (event.has(7)) found = found.filter((one) => one.step < step);
      for (const summary of event.get(5) ?? [])
        for (const encoded of fields(summary as Uint8Array).get(1) ?? []) {
          const value = fields(encoded as Uint8Array);
          found.push({ step, tag: Buffer.from(value.get(1)![0] as Uint8Array).toString(), value });
        }
    }
  return found;
}
