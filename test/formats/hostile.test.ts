import { execFileSync } from 'node:child_process';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZipFile } from 'yazl';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { CheckpointError } from '../../src/errors.js';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import { constantNode, operationNode, versionField } from '../support/graph-file.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hostile-'));
});
afterAll(() => rm(folder, { recursive: true }));

const pickle = (body: string) => Buffer.from(`\x80\x02${body}.`, 'latin1');
const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`;

/** A zip like PyTorch's with another pickle, padded to the same length with bytes that a pickle reader never reads. */
async function zipWith(name: string, body: Buffer): Promise<string> {
  const path = join(folder, name);
  const names = 'n'.repeat(body.length);
  await writePytorch(path, [{ name: names, dtype: 'F32', shape: [2], data: new Float32Array(2) }]);
  const handle = await open(path, 'r+');
  const { buffer } = await handle.read(Buffer.alloc(200), 0, 200, 0);
  await handle.write(body, 0, body.length, buffer.indexOf(Buffer.of(0x80, 2, 0x63)));
  await handle.close();
  return path;
}

/** A pickle of `{'x': tensor of shape (2)}` whose storage says it has `length` elements. */
function tensor(length: string, shape = 'K\x02\x85', strides = 'K\x01\x85'): Buffer {
  const id = `(${text('storage')}ctorch\nFloatStorage\n${text('0')}${text('cpu')}${length}t`;
  return pickle(`}(${text('x')}ctorch._utils\n_rebuild_tensor_v2\n(${id}QK\x00${shape}${strides}\x89NtRu`);
}
const int64 = (hex: string) => `\x8a\x08${Buffer.from(hex, 'hex').reverse().toString('latin1')}`;

async function expectRefusal(path: string, message: RegExp) {
  const error = await openTensorFile(path).catch((e) => e);
  expect(error).toBeInstanceOf(CheckpointError);
  expect(error.message).toMatch(message);
  expect(error.message).toContain(path);
}

describe('hostile pickles', () => {
  it.each<[string, Buffer, RegExp]>([
    ['os.system', pickle(`cos\nsystem\n(${text('true')}tR`), /wants to import os\.system, which is refused/],
    ['eval by stack', pickle(`\x8c\x08builtins\x8c\x04eval\x93(${text('1')}tR`), /import builtins\.eval/],
    ['a class', pickle('(iposix\nsystem\n'), /makes an object of a class/],
    [
      'torch.load inside',
      pickle(`ctorch.serialization\nload\n(${text('x')}tR`),
      /torch\.serialization\.load/,
    ],
    ['lists in lists', pickle(']'.repeat(200_000) + 'a'.repeat(199_999)), /nested too deep/],
    ['tuples in tuples', pickle(`)${'\x85'.repeat(300_000)}`), /nested deeper than 100/],
    ['a list in itself, many times', pickle(`]q\0${'h\0a'.repeat(700_000)}`), /nested deeper|longer than/],
    ['no end', pickle('N0'.repeat(2_000_000)), /longer than that of any file of tensors/],
    ['a text of 4 GB', pickle('X\xff\xff\xff\xff'), /ends too early/],
    [
      'an integer of a million bytes',
      pickle(`\x8b\x40\x42\x0f\x00${'\xff'.repeat(1_000_000)}`),
      /integer of/,
    ],
    ['a call of a tensor', pickle(`${text('x')})R`), /cannot be called/],
    ['a state for a list', pickle(']}b'), /gives a state/],
    ['an empty stack', pickle('0000R'), /lacks its value/],
  ])('%s', async (name, body, message) => {
    await expectRefusal(await zipWith(`${name}.pth`, body), message);
    await writeFile(join(folder, name), body);
    await expectRefusal(join(folder, name), message);
  });

  it.each<[string, Buffer, RegExp]>([
    ['a storage of 2^62 elements', tensor(int64('4000000000000000')), /no valid type, key and size/],
    ['a storage of −1 elements', tensor(int64('ffffffffffffffff')), /no valid type, key and size/],
    ['a storage larger than its entry', tensor('K\x09'), /storage 0 should have 36 bytes and has 8/],
    ['a tensor beyond its storage', tensor('K\x02', 'K\x03\x85'), /lies outside of its storage of 2/],
    ['strides of another length', tensor('K\x02', 'K\x02\x85', ')'), /lies outside/],
    [
      'a tensor that repeats one element 2^40 times',
      tensor('K\x02', `${int64('0000010000000000')}\x85`, 'K\x00\x85'),
      /repeats a storage of 2/,
    ],
  ])('%s', async (name, body, message) => {
    await expectRefusal(await zipWith(`${name}.pth`, body), message);
  });
});

describe('hostile zips', () => {
  const changed = async (name: string, change: (bytes: Buffer) => Buffer) => {
    const [whole, path] = [join(folder, 'whole.pth'), join(folder, name)];
    const data = Float32Array.from({ length: 5000 }, (_, i) => i);
    await writePytorch(whole, [{ name: 'x', dtype: 'F32', shape: [5000], data }]);
    await writeFile(path, change(await readFile(whole)));
    return path;
  };

  it('truncated anywhere', async () => {
    for (const share of [0.001, 0.01, 0.5, 0.99, 0.9999])
      await expectRefusal(
        await changed('cut.pth', (bytes) => bytes.subarray(0, Math.ceil(bytes.length * share))),
        /not a valid PyTorch file/,
      );
  });

  it('an entry that claims 10 GB', async () => {
    const path = await changed('large.pth', (bytes) => {
      // The directory's last entry gets 64-bit sizes in an extra field that was not there.
      const at = bytes.lastIndexOf(Buffer.from('PK\x01\x02'));
      const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06'));
      const entry = Buffer.from(bytes.subarray(at, end));
      const nameEnd = 46 + entry.readUInt16LE(28);
      const extra = Buffer.alloc(20);
      extra.writeUInt16LE(1, 0);
      extra.writeUInt16LE(16, 2);
      extra.writeBigUInt64LE(10_000_000_000n, 4);
      extra.writeBigUInt64LE(10_000_000_000n, 12);
      entry.writeUInt32LE(0xffffffff, 20);
      entry.writeUInt32LE(0xffffffff, 24);
      entry.writeUInt16LE(entry.readUInt16LE(30) + extra.length, 30);
      const grown = Buffer.concat([entry.subarray(0, nameEnd), extra, entry.subarray(nameEnd)]);
      const tail = Buffer.from(bytes.subarray(end));
      tail.writeUInt32LE(tail.readUInt32LE(12) + extra.length, 12);
      return Buffer.concat([bytes.subarray(0, at), grown, tail]);
    });
    await expectRefusal(path, /claims 10000000000 bytes in a file of/);
  });

  it('a directory that claims 4 GB', async () => {
    const path = await changed('directory.pth', (bytes) => {
      const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06'));
      bytes.writeUInt32LE(0xfffffff0, end + 12);
      return bytes;
    });
    await expectRefusal(path, /a zip directory of 4294967280 bytes/);
  });

  it('more entries than any file of weights has', async () => {
    const path = await changed('count.pth', (bytes) => {
      const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06'));
      const end64 = Buffer.alloc(56);
      end64.write('PK\x06\x06');
      end64.writeBigUInt64LE(2n ** 40n, 32);
      end64.writeBigUInt64LE(BigInt(bytes.readUInt32LE(end + 12)), 40);
      end64.writeBigUInt64LE(BigInt(bytes.readUInt32LE(end + 16)), 48);
      const locator = Buffer.alloc(20);
      locator.write('PK\x06\x07');
      locator.writeBigUInt64LE(BigInt(end), 8);
      return Buffer.concat([bytes.subarray(0, end), end64, locator, bytes.subarray(end)]);
    });
    await expectRefusal(path, /it claims 1099511627776 entries/);
  });
});

describe("TensorFlow's graphs", () => {
  const whole = constantNode({ name: 'w', shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) });
  const write = async (name: string, ...parts: Uint8Array[]) => {
    const path = join(folder, name);
    await writeFile(path, Buffer.concat(parts));
    return path;
  };

  it('give their float constants, repeated values expanded, and skip other nodes', async () => {
    const repeated = constantNode({ name: 'v', shape: [3], values: Float32Array.of(7), asFloats: true });
    const nodes = [operationNode('c', 'Conv2D', 'w'), whole, repeated, versionField(8)];
    const file = await openTensorFile(await write('graph.pb', ...nodes));
    expect([...file.tensors].map(([name, { shape }]) => [name, shape])).toEqual([
      ['w', [2, 2]],
      ['v', [3]],
    ]);
    expect(await file.read('w')).toEqual(Float32Array.of(1, 2, 3, 4));
    expect(await file.readFloat32('v')).toEqual(Float32Array.of(7, 7, 7));
    await file.close();
  });

  const lineFeedText = Buffer.from(
    `\n${'no graph at all, but a text that begins with an empty line\n'.repeat(50)}`,
  );
  const claims = (bytes: number[]) => Buffer.from([0x0a, ...bytes]);
  it.each<[string, Uint8Array, RegExp]>([
    ['a text', lineFeedText, /not a valid TensorFlow graph/],
    ['a node of 4 GB', claims([0xff, 0xff, 0xff, 0xff, 0x0f]), /ends too early/],
    ['a length that never ends', claims(new Array(40).fill(0xff)), /not a valid TensorFlow graph/],
    ['a node cut off', whole.subarray(0, 40), /ends too early/],
    ['groups in groups', claims([0xc8, 1, ...new Array(200).fill(0x1b)]), /recursion depth/],
    [
      'a million nodes of nothing',
      Buffer.alloc(2_000_000, Uint8Array.of(0x0a, 0)),
      /more nodes than any network/,
    ],
    [
      'a shape of 2⁶⁰ elements',
      constantNode({ name: 'w', shape: [2 ** 30, 2 ** 30], values: Float32Array.of(1), asFloats: true }),
      /a shape of \[1073741824,1073741824\]/,
    ],
    [
      'a negative size',
      constantNode({ name: 'w', shape: [-1], values: Float32Array.of(1) }),
      /a shape of \[-1\]/,
    ],
    [
      'more elements than its shape has',
      constantNode({ name: 'w', shape: [1], values: Float32Array.of(1, 2) }),
      /2 elements of \[1\]/,
    ],
    ['two nodes of one name', Buffer.concat([whole, whole]), /two nodes w/],
  ])('%s is refused', async (name, bytes, message) => {
    await expectRefusal(await write(`${name.replaceAll(' ', '-')}.pb`, bytes), message);
  });
});

/** Opens a file in its own process; returns its error, processor time in seconds, and peak memory in bytes. */
function openAlone(path: string): { error: string; seconds: number; peak: number } {
  const module = (name: string) => JSON.stringify(new URL(`../../dist/${name}.js`, import.meta.url).href);
  const script = `
    import { openNpz } from ${module('formats/npz')};
    import { openTensorFile } from ${module('checkpoint/open')};
    const path = process.argv[1];
    const read = async () => {
      if (!path.endsWith('.npz')) return openTensorFile(path);
      const npz = await openNpz(path);
      for (const name of npz.names) await npz.read(name);
    };
    const began = process.cpuUsage();
    const { name } = await read().catch((e) => e);
    const { user, system } = process.cpuUsage(began);
    const seconds = (user + system) / 1e6;
    console.log(JSON.stringify({ error: name, seconds, peak: process.resourceUsage().maxRSS * 1024 }));`;
  const options = { encoding: 'utf8' as const, timeout: 30_000 };
  return JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script, path], options));
}

describe('a hostile file takes less than a second and 200 MB', () => {
  const file = async (name: string, content: Uint8Array) => {
    await writeFile(join(folder, name), content);
    return join(folder, name);
  };
  const safetensors = (header: object, data = 8) => {
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([length, text, Buffer.alloc(data)]);
  };
  const f32 = (begin: number, end: number, shape: number[]) => ({
    dtype: 'F32',
    shape,
    data_offsets: [begin, end],
  });
  const npz = (name: string, header: string, data: Buffer, compress: boolean) => {
    const zip = new ZipFile();
    const npy = Buffer.concat([
      Buffer.from('\x93NUMPY\x01\x00', 'latin1'),
      Buffer.alloc(2),
      Buffer.from(header),
    ]);
    npy.writeUInt16LE(header.length, 8);
    zip.addBuffer(Buffer.concat([npy, data]), 'arr_0.npy', { compress });
    zip.end();
    return buffer(zip.outputStream).then((bytes) => file(name, bytes));
  };
  /** Sets the sizes of the only directory entry. */
  const claiming = async (path: string, size: number) => {
    const bytes = await readFile(path);
    const at = bytes.lastIndexOf(Buffer.from('PK\x01\x02'));
    bytes.writeUInt32LE(size, at + 24);
    return file('claims.npz', bytes);
  };
  const numbers = "{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }\n";

  it.each<[string, string, () => Promise<string>]>([
    ['os.system', 'CheckpointError', () => zipWith('system.pth', pickle(`cos\nsystem\n(${text('x')}tR`))],
    [
      'a deep nest',
      'CheckpointError',
      () => zipWith('deep.pth', pickle(`]q\0${'(h\0lq\0'.repeat(400_000)}`)),
    ],
    ['lists in lists', 'CheckpointError', () => zipWith('lists.pth', pickle(']'.repeat(2_000_000)))],
    ['a bogus storage', 'CheckpointError', () => zipWith('bogus.pth', tensor(int64('4000000000000000')))],
    ['a storage of 10 GB', 'CheckpointError', () => zipWith('ten.pth', tensor(int64('0000000280000000')))],
    ['a zip that is cut', 'CheckpointError', () => file('cut', Buffer.from('PK\x03\x04 and no more'))],
    [
      'a zip of 65,000 entries',
      'CheckpointError',
      () => {
        const local = Buffer.alloc(30);
        local.write('PK\x03\x04');
        const directory = Buffer.alloc(65_000 * 51); // all entries are the same empty one
        for (let i = 0; i < 65_000; i++) {
          directory.write('PK\x01\x02', 51 * i);
          directory.writeUInt16LE(5, 51 * i + 28);
          directory.write(String(i).padStart(5, '0'), 51 * i + 46);
        }
        const end = Buffer.alloc(22);
        end.write('PK\x05\x06');
        end.writeUInt16LE(65_000, 10);
        end.writeUInt32LE(directory.length, 12);
        end.writeUInt32LE(local.length, 16);
        return file('entries.pth', Buffer.concat([local, directory, end]));
      },
    ],
    [
      'a header of 2^63 bytes',
      'CheckpointError',
      () => file('long', Buffer.from('00000000000000807b', 'hex')),
    ],
    [
      'overlapping offsets',
      'CheckpointError',
      () => file('overlap', safetensors({ a: f32(0, 8, [2]), b: f32(4, 8, [1]) })),
    ],
    [
      'a shape beyond all memory',
      'CheckpointError',
      () => file('shape', safetensors({ a: f32(0, 8, [2 ** 40, 2 ** 40]) })),
    ],
    [
      'a header of 300,000 tensors of no kind',
      'CheckpointError',
      () => file('many', safetensors(Object.fromEntries(Array.from({ length: 300_000 }, (_, i) => [i, {}])))),
    ],
    [
      'an object array',
      'DataError',
      () =>
        npz(
          'object.npz',
          "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
          Buffer.alloc(8),
          false,
        ),
    ],
    [
      'an array of 10^15 elements',
      'DataError',
      () => npz('elements.npz', numbers.replace('(4,)', '(1000000000000000,)'), Buffer.alloc(32), true),
    ],
    [
      'a deflated entry that claims 4 GB',
      'DataError',
      async () => claiming(await npz('small.npz', numbers, Buffer.alloc(32), true), 0xfffffff0),
    ],
    [
      'a graph of 50 million nodes',
      'CheckpointError',
      () => file('nodes.pb', Buffer.alloc(100_000_000, Uint8Array.of(0x0a, 0))),
    ],
    ['a graph that is none', 'CheckpointError', () => file('text.pb', Buffer.from('\nno graph at all\n'))],
  ])('%s', async (_, expected, make) => {
    const { error, seconds, peak } = openAlone(await make());
    expect(error).toBe(expected);
    expect(seconds).toBeLessThan(1);
    expect(peak).toBeLessThan(200e6);
  });
});
