import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CheckpointError } from '../../src/errors.js';
import type { TypedArray } from '../../src/files/bytes.js';
import {
  type Dtype,
  openSafetensors,
  SafetensorsWriter,
  writeSafetensors,
} from '../../src/formats/safetensors.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

function fileOf(header: unknown, data: Uint8Array, length?: bigint): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([prefix, text, data]);
}

describe('round trip', () => {
  const values: [Dtype, TypedArray][] = [
    ['U8', Uint8Array.of(0, 255, 7)],
    ['F64', Float64Array.of(Math.PI, -0, 1e300)],
    ['F32', Float32Array.of(1.5, -2.25, 3e38)],
    ['I64', BigInt64Array.of(-1n, 2n ** 62n, 3n)],
    ['I32', Int32Array.of(-1, 2 ** 30, 5)],
    ['I16', Int16Array.of(-32768, 1, 2)],
    ['I8', Int8Array.of(-128, 127, 1)],
    ['U16', Uint16Array.of(65535, 1, 2)],
    ['U32', Uint32Array.of(4294967295, 1, 2)],
    ['BOOL', Uint8Array.of(0, 1, 1)],
    ['F16', Uint16Array.of(0x3c00, 0xc000, 0x7bff)],
    ['BF16', Uint16Array.of(0x3f80, 0xc000, 0x7f7f)],
  ];

  it('round-trips every dtype, the metadata and a scalar', async () => {
    const path = join(folder, 'all.safetensors');
    const tensors = values.map(([dtype, data]) => ({ name: `t.${dtype}`, dtype, shape: [3, 1], data }));
    const scalar = { name: 's', dtype: 'F32' as const, shape: [], data: () => Float32Array.of(4) };
    await writeSafetensors(path, [...tensors, scalar], { seed: '11', note: 'ä"\n' });
    const file = await openSafetensors(path);
    for (const { name, dtype, data } of tensors) {
      expect(file.tensors.get(name)).toMatchObject({ dtype, shape: [3, 1] });
      expect(await file.read(name)).toEqual(data);
    }
    expect(await file.read('s')).toEqual(Float32Array.of(4));
    expect(file.metadata).toMatchObject({ seed: '11', note: 'ä"\n' });
    await expect(file.read('absent')).rejects.toThrow(/no tensor absent/);
    await file.close();
  });

  it('starts each tensor at a multiple of its element size', async () => {
    const bytes = await readFile(join(folder, 'all.safetensors'));
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).toBe(0);
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    for (const [dtype, data] of values) {
      expect(header[`t.${dtype}`].data_offsets[0] % data.BYTES_PER_ELEMENT).toBe(0);
    }
  });

  it('requests one tensor at a time, in the order of the file', async () => {
    const asked: string[] = [];
    const tensor = (name: string) => ({
      name,
      dtype: 'F32' as const,
      shape: [1],
      data: async () => {
        asked.push(name);
        return new Float32Array(1);
      },
    });
    await writeSafetensors(join(folder, 'lazy.safetensors'), [tensor('b'), tensor('a')]);
    expect(asked).toEqual(['b', 'a']);
  });

  it('reads parts', async () => {
    const path = join(folder, 'rows.safetensors');
    const data = Int16Array.from({ length: 24 }, (_, i) => i - 5);
    await writeSafetensors(path, [{ name: 'x', dtype: 'I16', shape: [4, 2, 3], data }]);
    const file = await openSafetensors(path);
    expect(await file.readRange('x', 7, 11)).toEqual(data.slice(7, 18));
    await expect(file.readRange('x', 20, 5)).rejects.toThrow(RangeError);
    await file.close();
  });

  it('refuses data of another type or size, and leaves no file', async () => {
    const before = await readdir(folder);
    for (const data of [new Float32Array(3), new Int32Array(4)]) {
      const tensors = [{ name: 'x', dtype: 'F32' as const, shape: [2, 2], data }];
      await expect(writeSafetensors(join(folder, 'wrong'), tensors)).rejects.toThrow(
        /x should be F32 \(2, 2\)/,
      );
    }
    expect(await readdir(folder)).toEqual(before);
  });
});

describe('float32 from other dtypes', () => {
  // Values of the IEEE 754 and bfloat16 tables: one, smallest subnormal, largest, infinities, negative zero.
  it.each([
    [
      'F16',
      [0x3c00, 0xc000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x8000, 0x3555],
      [1, -2, 2 ** -24, -1023 * 2 ** -24, 2 ** -14, 65504, Infinity, -Infinity, -0, 0.333251953125],
    ],
    [
      'BF16',
      [0x3f80, 0xc000, 0x0001, 0x7f80, 0xff80, 0x8000, 0x3eab],
      [1, -2, 2 ** -133, Infinity, -Infinity, -0, 0.333984375],
    ],
  ] as const)('%s', async (dtype, bits, expected) => {
    const path = join(folder, `${dtype}.safetensors`);
    const data = Uint16Array.of(...bits, 0x7fff);
    await writeSafetensors(path, [{ name: 'x', dtype, shape: [data.length], data }]);
    const file = await openSafetensors(path);
    expect(await file.readFloat32('x')).toEqual(Float32Array.of(...expected, NaN));
    await file.close();
  });

  it('refuses integers', async () => {
    const path = join(folder, 'integers.safetensors');
    await writeSafetensors(path, [{ name: 'ids', dtype: 'I32', shape: [1], data: new Int32Array(1) }]);
    const file = await openSafetensors(path);
    await expect(file.readFloat32('ids')).rejects.toThrow(/ids has dtype I32/);
    await file.close();
  });
});

describe('invalid files', () => {
  const one = (offsets: unknown, shape: unknown = [2], dtype = 'F32') => ({
    dtype,
    shape,
    data_offsets: offsets,
  });
  it.each<[string, Uint8Array, RegExp]>([
    ['empty', new Uint8Array(0), /has 0 bytes/],
    [
      'a header of 2^63 bytes',
      fileOf('{}', new Uint8Array(0), 2n ** 63n),
      /header of 9223372036854775808 bytes/,
    ],
    ['a header beyond the end', fileOf('{}', new Uint8Array(0), 3n), /header of 3 bytes/],
    ['text', Buffer.from('this is a text of some length'), /header of/],
    ['no JSON', fileOf('{"x', new Uint8Array(0)), /not JSON/],
    ['an array', fileOf('[]', new Uint8Array(0)), /not a JSON object/],
    ['null', fileOf('null', new Uint8Array(0)), /not a JSON object/],
    ['a tensor of null', fileOf({ x: null }, new Uint8Array(8)), /unknown dtype/],
    ['an unknown dtype', fileOf({ x: one([0, 8], [2], 'toString') }, new Uint8Array(8)), /dtype toString/],
    ['a negative dimension', fileOf({ x: one([0, 8], [-2]) }, new Uint8Array(8)), /no valid shape/],
    ['a shape that overflows', fileOf({ x: one([0, 8], [2 ** 40, 2 ** 40]) }, new Uint8Array(8)), /needs/],
    ['offsets backwards', fileOf({ x: one([8, 0]) }, new Uint8Array(8)), /needs 8 bytes and has -8/],
    [
      'bytes that do not match the shape',
      fileOf({ x: one([0, 4]) }, new Uint8Array(4)),
      /needs 8 bytes and has 4/,
    ],
    ['overlap', fileOf({ x: one([0, 8]), y: one([4, 12]) }, new Uint8Array(12)), /y overlaps/],
    ['a gap', fileOf({ x: one([0, 8]), y: one([12, 20]) }, new Uint8Array(20)), /gap before y/],
    ['truncated', fileOf({ x: one([0, 8]) }, new Uint8Array(7)), /should have \d+ bytes and has/],
    ['bytes after the end', fileOf({ x: one([0, 8]) }, new Uint8Array(9)), /should have \d+ bytes and has/],
    ['metadata that are not strings', fileOf({ __metadata__: { a: 1 } }, new Uint8Array(0)), /__metadata__/],
  ])('%s', async (name, bytes, message) => {
    const path = join(folder, `bad ${name}`);
    await writeFile(path, bytes);
    const error = await openSafetensors(path).catch((e) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(path);
    expect(error.message).not.toContain('\n');
  });

  it('names a missing file', async () => {
    await expect(openSafetensors(join(folder, 'none'))).rejects.toThrow(/none: no such file/);
    await expect(openSafetensors(folder)).rejects.toThrow(/is not a file/);
  });
});

describe('a tensor that grows', () => {
  it('has the rows that were added, and no file exists before the end', async () => {
    const path = join(folder, 'grown.safetensors');
    const codes = { name: 'codes', dtype: 'U16', shape: [1000, 2, 2] } as const;
    const writer = await SafetensorsWriter.create(path, codes, { source: 'photographs' });
    await writer.append(Uint16Array.of(1, 2, 3, 4));
    await writer.append(Uint16Array.of(5, 6, 7, 8, 9, 10, 11, 12));
    await expect(readFile(path)).rejects.toThrow(/ENOENT/);
    await expect(writer.append(new Uint16Array(3))).rejects.toThrow(/do not fit/);
    const classes = Int32Array.of(0, 1, 1);
    await writer.finish([{ name: 'classes', dtype: 'I32', shape: [3], data: classes }], { counted: '3' });
    const file = await openSafetensors(path);
    expect(file.tensors.get('codes')?.shape).toEqual([3, 2, 2]);
    expect(await file.readRange('codes', 4, 8)).toEqual(Uint16Array.of(5, 6, 7, 8, 9, 10, 11, 12));
    expect(await file.read('classes')).toEqual(classes);
    expect(file.metadata).toMatchObject({ source: 'photographs', counted: '3' });
    await file.close();
  });

  it('leaves nothing when it is aborted', async () => {
    const before = await readdir(folder);
    const tensor = { name: 'x', dtype: 'F32', shape: [9] } as const;
    const writer = await SafetensorsWriter.create(join(folder, 'given-up'), tensor, {});
    expect(await readdir(folder)).not.toEqual(before);
    await writer.abort();
    expect(await readdir(folder)).toEqual(before);
  });
});
