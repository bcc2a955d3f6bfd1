import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZipFile } from 'yazl';
import { DataError } from '../../src/errors.js';
import type { TypedArray } from '../../src/files/bytes.js';
import { decodeNpy, type NpyDtype } from '../../src/formats/npy.js';
import { openNpz, writeNpz } from '../../src/formats/npz.js';
import { encodeNpy } from '../support/npy.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'npz-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A .npy file in NumPy's layout, from the text of its header. */
function npy(header: string, data: Uint8Array, version = 1): Buffer {
  const prefix = Buffer.alloc(version === 1 ? 10 : 12);
  prefix.write('\x93NUMPY', 'latin1');
  prefix[6] = version;
  if (version === 1) prefix.writeUInt16LE(header.length, 8);
  else prefix.writeUInt32LE(header.length, 8);
  return Buffer.concat([prefix, Buffer.from(header), data]);
}

const header = (descr: string, shape: string, order = 'False') =>
  `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }\n`;

describe('npy', () => {
  it.each<[NpyDtype, string, TypedArray]>([
    ['f4', "'<f4'", Float32Array.of(1.5, -2, 3)],
    ['f8', "'<f8'", Float64Array.of(Math.PI, -2, 3)],
    ['i8', "'<i8'", BigInt64Array.of(-1n, 2n ** 62n, 3n)],
    ['i4', "'<i4'", Int32Array.of(-1, 2, 3)],
    ['i2', "'<i2'", Int16Array.of(-1, 2, 3)],
    ['u2', "'<u2'", Uint16Array.of(65535, 2, 3)],
    ['u1', "'|u1'", Uint8Array.of(255, 2, 3)],
    ['b1', "'|b1'", Uint8Array.of(1, 0, 1)],
  ])('%s', (dtype, descr, data) => {
    const bytes = encodeNpy({ dtype, shape: [3], data });
    const expected = npy(`${header(descr, '(3,)').trimEnd().padEnd(117)}\n`, new Uint8Array(data.buffer));
    expect(Buffer.from(bytes).equals(expected)).toBe(true);
    expect(decodeNpy(bytes, 'x')).toEqual({ dtype, shape: [3], data });
  });

  it('reads versions 2 and 3, a scalar and an empty array', () => {
    const scalar = npy(header("'<f8'", '()'), new Uint8Array(Float64Array.of(2.5).buffer), 2);
    expect(decodeNpy(scalar, 'x')).toEqual({ dtype: 'f8', shape: [], data: Float64Array.of(2.5) });
    const empty = npy(header("'<f4'", '(0, 3)'), new Uint8Array(0), 3);
    expect(decodeNpy(empty, 'x')).toEqual({ dtype: 'f4', shape: [0, 3], data: new Float32Array(0) });
  });

  it('converts Fortran order to row-major order', () => {
    // numpy.asfortranarray(numpy.arange(6).reshape(1, 2, 3)) lies in memory as 0 3 1 4 2 5
    const data = new Uint8Array(Int32Array.of(0, 3, 1, 4, 2, 5).buffer);
    const array = decodeNpy(npy(header("'<i4'", '(1, 2, 3)', 'True'), data), 'x');
    expect(array).toEqual({ dtype: 'i4', shape: [1, 2, 3], data: Int32Array.of(0, 1, 2, 3, 4, 5) });
  });

  it('reads strings', () => {
    const wide = new Uint8Array(Uint32Array.of(0x63, 0x61, 0x74, 0x1f600, 0, 0).buffer);
    expect(decodeNpy(npy(header("'<U3'", '(2,)'), wide), 'x').data).toEqual(['cat', '😀']);
    expect(decodeNpy(npy(header("'|S3'", '()'), Buffer.from('ab\0')), 'x').data).toEqual(['ab']);
  });

  it.each([
    ['an object array', header("'|O'", '(1,)'), /x is an object array/],
    ['a structured array', header("[('a', '<f4')]", '(1,)'), /structured array/],
    ['big-endian numbers', header("'>f4'", '(1,)'), /NumPy type >f4/],
    ['complex numbers', header("'<c8'", '(1,)'), /NumPy type <c8/],
    ['a header without a shape', "{'descr': '<f4', 'fortran_order': False}\n", /not a valid/],
    ['more elements than bytes', header("'<f4'", '(5,)'), /should have \d+ bytes and has/],
    ['a size beyond all bounds', header("'<f4'", '(9999999999, 9999999999)'), /not a valid/],
  ])('refuses %s', (_, text, message) => {
    const decode = () => decodeNpy(npy(text, new Uint8Array(8)), 'x');
    expect(decode).toThrow(DataError);
    expect(decode).toThrow(message);
  });

  it('refuses a file cut within the header, and other files', () => {
    const bytes = encodeNpy({ dtype: 'u1', shape: [1], data: Uint8Array.of(1) });
    expect(() => decodeNpy(bytes.subarray(0, 50), 'x')).toThrow(/not a valid/);
    expect(() => decodeNpy(Buffer.from('a text, not an array'), 'x')).toThrow(/not a valid/);
  });
});

describe('npz', () => {
  const images = Uint8Array.from({ length: 10 * 5 * 7 }, (_, i) => (i * 37) % 256);

  it('round-trips arrays written at once and in parts; equal arrays give equal bytes', async () => {
    async function* parts() {
      for (let i = 0; i < 10; i += 4) yield images.slice(i * 35, Math.min(10, i + 4) * 35);
    }
    const arrays = () => [
      { name: 'arr_0', dtype: 'u1' as const, shape: [10, 5, 7], data: parts() },
      { name: 'mu', dtype: 'f8' as const, shape: [2], data: Float64Array.of(1, 2) },
    ];
    const [a, b] = [join(folder, 'a.npz'), join(folder, 'b.npz')];
    await writeNpz(a, arrays());
    await writeNpz(b, arrays());
    expect((await readFile(a)).equals(await readFile(b))).toBe(true);
    const npz = await openNpz(a);
    expect(npz.names).toEqual(['arr_0', 'mu']);
    expect([npz.has('mu'), npz.has('sigma')]).toEqual([true, false]);
    expect(await npz.read('mu')).toEqual({ dtype: 'f8', shape: [2], data: Float64Array.of(1, 2) });
    expect(await npz.read('arr_0')).toEqual({ dtype: 'u1', shape: [10, 5, 7], data: images });
    await expect(npz.read('sigma')).rejects.toThrow(/no array sigma; it has arr_0, mu/);
    npz.close();
  });

  it('closes the generator of an array and leaves nothing when one is too short', async () => {
    const before = await readdir(folder);
    let closed = false;
    function* short() {
      try {
        yield images;
      } finally {
        closed = true;
      }
    }
    const arrays = [{ name: 'x', dtype: 'u1' as const, shape: [11, 35], data: short() }];
    await expect(writeNpz(join(folder, 'c.npz'), arrays)).rejects.toThrow(/x has 350 elements/);
    expect(closed).toBe(true);
    expect(await readdir(folder)).toEqual(before);
  });

  it.each([true, false])('reads ranges of rows, deflated: %s', async (compress) => {
    const path = join(folder, `rows-${compress}.npz`);
    const zip = new ZipFile();
    zip.addBuffer(Buffer.from('no array'), 'notes.txt');
    zip.addBuffer(Buffer.from(encodeNpy({ dtype: 'u1', shape: [10, 5, 7], data: images })), 'x.npy', {
      compress,
    });
    zip.end();
    await writeFile(path, await buffer(zip.outputStream));
    const npz = await openNpz(path);
    expect(npz.names).toEqual(['x']);
    const collect = async (...range: [number, number?, number?]) => {
      const parts: TypedArray[] = [];
      for await (const part of npz.rows('x', ...range)) parts.push(part);
      return parts;
    };
    expect((await collect(4)).map((part) => part.length)).toEqual([140, 140, 70]);
    expect(await collect(3, 2, 9)).toEqual([
      images.slice(70, 175),
      images.slice(175, 280),
      images.slice(280, 315),
    ]);
    expect(await collect(4, 5, 5)).toEqual([]);
    // After leaving the loop early, the file can be read again.
    for await (const part of npz.rows('x', 1)) {
      expect(part).toEqual(images.slice(0, 35));
      break;
    }
    expect((await npz.header('x')).shape).toEqual([10, 5, 7]);
    npz.close();
  });

  it('refuses files that are missing or cut off', async () => {
    await expect(openNpz(join(folder, 'none.npz'))).rejects.toThrow(/none.npz as .npz: no such file/);
    const bytes = await readFile(join(folder, 'a.npz'));
    await writeFile(join(folder, 'cut.npz'), bytes.subarray(0, bytes.length - 30));
    const cut = await openNpz(join(folder, 'cut.npz')).catch((e) => e);
    expect(cut).toBeInstanceOf(DataError);
    expect(cut.message).toContain('cut.npz');
  });

  it('refuses damaged deflated data', async () => {
    const path = join(folder, 'rows-true.npz');
    const bytes = await readFile(path);
    const at = bytes.indexOf('x.npy') + 40;
    bytes.fill(0xff, at, at + 100);
    await writeFile(join(folder, 'damaged.npz'), bytes);
    const npz = await openNpz(join(folder, 'damaged.npz'));
    await expect(npz.read('x')).rejects.toThrow(/cannot read x in .*damaged.npz/);
    npz.close();
  });

  it('an entry that claims 10 GB is refused before it is read', async () => {
    const zip = new ZipFile();
    zip.addBuffer(Buffer.alloc(2000), 'x.npy', {
      compress: true,
      forceZip64Format: true,
      forceDosTimestamp: true,
    });
    zip.end();
    const bytes = await buffer(zip.outputStream);
    // In the directory entry, extra field 1 has the 64-bit sizes.
    const entry = bytes.lastIndexOf(Buffer.from('PK\x01\x02'));
    let field = entry + 46 + bytes.readUInt16LE(entry + 28);
    while (bytes.readUInt16LE(field) !== 1) field += 4 + bytes.readUInt16LE(field + 2);
    bytes.writeBigUInt64LE(10_000_000_000n, field + 4);
    const path = join(folder, 'large.npz');
    await writeFile(path, bytes);
    await expect(openNpz(path)).rejects.toThrow(
      /large\.npz as \.npz: its entry x\.npy claims 10000000000 bytes/,
    );
  });
});
