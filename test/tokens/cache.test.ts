import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataError } from '../../src/errors.js';
import { writeNpz } from '../../src/formats/npz.js';
import { openSafetensors, writeSafetensors } from '../../src/formats/safetensors.js';
import {
  checkTokenizer,
  openTokenCache,
  type TokenCacheDescription,
  TokenCacheWriter,
} from '../../src/tokens/cache.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokens-'));
});
afterAll(() => rm(folder, { recursive: true }));

const DESCRIPTION: TokenCacheDescription = {
  images: 5,
  crops: 2,
  tokens: 3,
  codebookSize: 4096,
  classNames: ['cat', 'dög'],
  fingerprint: 'abc123',
  preprocessing: 'flip',
  imageSize: 32,
  source: 'photographs',
};

async function write(name: string, description: TokenCacheDescription, rows: [number[], number][]) {
  const path = join(folder, name);
  const writer = await TokenCacheWriter.create(path, description);
  for (const [codes, index] of rows) await writer.append(codes, index);
  await writer.finish();
  return path;
}

const ROWS: [number[], number][] = [
  [[1, 2, 3, 4, 5, 4095], 1],
  [[7, 8, 9, 10, 11, 12], 0],
  [[13, 14, 15, 16, 17, 18], 1],
];

describe('own format', () => {
  it('returns codes, classes and provenance; fewer images than announced', async () => {
    const path = await write('a.safetensors', DESCRIPTION, ROWS);
    const cache = await openTokenCache(path);
    expect(cache).toMatchObject({ path, images: 3, crops: 2, tokens: 3, classNames: ['cat', 'dög'] });
    expect(cache.provenance).toEqual({
      fingerprint: 'abc123',
      codebookSize: 4096,
      preprocessing: 'flip',
      imageSize: 32,
      source: 'photographs',
    });
    expect(cache.classes).toEqual(Int32Array.of(1, 0, 1));
    const into = new Int32Array(7);
    await cache.read(0, 1, into, 1);
    await cache.read(2, 0, into, 4);
    expect(into).toEqual(Int32Array.of(0, 4, 5, 4095, 13, 14, 15));
    await cache.close();
  });

  it('holds codes of a large codebook', async () => {
    const large = { ...DESCRIPTION, codebookSize: 70000 };
    const cache = await openTokenCache(
      await write('large.safetensors', large, [[[0, 1, 69999, 3, 4, 5], 0]]),
    );
    const into = new Int32Array(3);
    await cache.read(0, 0, into, 0);
    expect(into).toEqual(Int32Array.of(0, 1, 69999));
    await cache.close();
  });

  it('does not exist before it is finished, nor after it is aborted', async () => {
    const before = await readdir(folder);
    const writer = await TokenCacheWriter.create(join(folder, 'b.safetensors'), DESCRIPTION);
    await writer.append(ROWS[0][0], 0);
    await expect(readFile(join(folder, 'b.safetensors'))).rejects.toThrow('ENOENT');
    await writer.abort();
    expect(await readdir(folder)).toEqual(before);
  });

  it('refuses invalid codes and classes', async () => {
    const writer = await TokenCacheWriter.create(join(folder, 'c.safetensors'), DESCRIPTION);
    await expect(writer.append([0, 1, 2, 3, 4, 4096], 0)).rejects.toThrow(/code 4096/);
    await expect(writer.append([0, 1, 2, 3, 4, -1], 0)).rejects.toThrow(/code -1/);
    await expect(writer.append([0, 1, 2, 3, 4, 5], 2)).rejects.toThrow(/class 2/);
    await expect(writer.append([0, 1, 2], 0)).rejects.toThrow();
    await writer.abort();
  });

  it('knows its tokenizer', async () => {
    const cache = await openTokenCache(join(folder, 'a.safetensors'));
    checkTokenizer(cache, 'abc123');
    const check = () => checkTokenizer(cache, 'def456');
    expect(check).toThrow(DataError);
    expect(check).toThrow(/a.safetensors was made with another tokenizer \(abc123, not def456\)/);
    await cache.close();
  });

  /** A copy of a.safetensors with other metadata or codes. */
  async function altered(
    name: string,
    metadata: Record<string, string>,
    replace: Record<string, number[]> = {},
  ) {
    const file = await openSafetensors(join(folder, 'a.safetensors'));
    const [codes, classes] = [await file.read('codes'), await file.read('classes')];
    const path = join(folder, name);
    await writeSafetensors(
      path,
      [
        {
          name: 'codes',
          dtype: 'U16',
          shape: [3, 2, 3],
          data: replace.codes ? Uint16Array.from(replace.codes) : codes,
        },
        {
          name: 'classes',
          dtype: 'I32',
          shape: [replace.classes?.length ?? 3],
          data: replace.classes ? Int32Array.from(replace.classes) : classes,
        },
      ],
      { ...file.metadata, ...metadata },
    );
    await file.close();
    return path;
  }

  it.each<[string, Record<string, string>, Record<string, number[]>, RegExp]>([
    ['another safetensors file', { format: 'pt' }, {}, /is not a token cache/],
    ['another version', { version: '9' }, {}, /has version 9/],
    ['a size that is no number', { codebook_size: 'many' }, {}, /metadata is incomplete/],
    ['class names that are no list', { class_names: 'cat' }, {}, /metadata is incomplete/],
    ['a class without a name', {}, { classes: [0, 1, 2] }, /tensors are inconsistent/],
    ['fewer classes than images', {}, { classes: [0, 1] }, /tensors are inconsistent/],
  ])('refuses %s', async (name, metadata, replace, message) => {
    const path = await altered(`${name}.safetensors`, metadata, replace);
    const error = await openTokenCache(path).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(message);
  });

  it('refuses codes outside the codebook', async () => {
    const cache = await openTokenCache(
      await altered('beyond.safetensors', {}, { codes: Array(18).fill(4096) }),
    );
    await expect(cache.read(1, 0, new Int32Array(3), 0)).rejects.toThrow(/image 1 has codes outside/);
    await cache.close();
  });

  it('reads a large file row by row', async () => {
    // 200,000 images with ten crops of 273 codes: 1.09 GB, a hole in the file except for one row.
    const path = join(folder, 'huge.safetensors');
    const [images, crops, tokens] = [200_000, 10, 273];
    const small = await openSafetensors(join(folder, 'a.safetensors'));
    const { metadata } = small;
    await small.close();
    const size = images * crops * tokens * 2;
    const header = JSON.stringify({
      __metadata__: metadata,
      codes: { dtype: 'U16', shape: [images, crops, tokens], data_offsets: [0, size] },
      classes: { dtype: 'I32', shape: [images], data_offsets: [size, size + images * 4] },
    });
    const bytes = Buffer.byteLength(header);
    const file = await open(path, 'w');
    await file.write(new Uint8Array(BigUint64Array.of(BigInt(bytes)).buffer));
    await file.write(header);
    const row = Uint16Array.from({ length: tokens }, (_, i) => i + 1);
    const place = 8 + bytes + (199_999 * crops + 7) * tokens * 2;
    await file.write(new Uint8Array(row.buffer), 0, row.byteLength, place);
    await file.truncate(8 + bytes + size + images * 4);
    await file.close();

    const cache = await openTokenCache(path);
    const into = new Int32Array(tokens);
    await cache.read(199_999, 7, into, 0);
    expect(into).toEqual(Int32Array.from(row));
    await cache.read(199_999, 6, into, 0);
    expect(into).toEqual(new Int32Array(tokens));
    await cache.close();
    await rm(path);
  });

  it('refuses a truncated file, a text and a missing file as data errors', async () => {
    const bytes = await readFile(join(folder, 'a.safetensors'));
    await writeFile(join(folder, 'cut'), bytes.subarray(0, -3));
    await writeFile(join(folder, 'text'), 'a text that is not a cache');
    for (const name of ['cut', 'text', 'none']) {
      const error = await openTokenCache(join(folder, name)).catch((e) => e);
      expect(error).toBeInstanceOf(DataError);
      expect(error.message).toContain(join(folder, name));
    }
  });
});

describe("the reference's layout", () => {
  async function writeCodes(path: string, codes: bigint[], shape = [2, 3]) {
    const data = BigInt64Array.from(codes);
    await writeNpz(join(folder, path), [{ name: 'codes', dtype: 'i8', shape, data }]);
  }

  it('is read through the same interface', async () => {
    for (const name of ['n02', 'n01']) await mkdir(join(folder, 'codes', name), { recursive: true });
    await writeCodes('codes/n02/b.npz', [1n, 2n, 3n, 4n, 5n, 6n]);
    await writeCodes('codes/n02/a.npz', [7n, 8n, 9n, 10n, 11n, 12n]);
    await writeCodes('codes/n01/z.npz', [13n, 14n, 15n, 16n, 17n, 18n]);
    const cache = await openTokenCache(join(folder, 'codes'));
    expect(cache).toMatchObject({ images: 3, crops: 2, tokens: 3, classNames: ['n01', 'n02'] });
    expect(cache.classes).toEqual(Int32Array.of(0, 1, 1));
    expect(cache.provenance).toBeUndefined();
    checkTokenizer(cache, 'whatever');
    const into = new Int32Array(4);
    for (const repetition of [1, 2]) {
      into.fill(repetition);
      await cache.read(1, 1, into, 1);
      expect(into).toEqual(Int32Array.of(repetition, 10, 11, 12));
    }
  });

  it('names files that do not match', async () => {
    await writeCodes('codes/n02/c.npz', [1n, 2n, 3n, 4n], [2, 2]);
    await writeCodes('codes/n02/d.npz', [1n, 2n, 3n, -4n, 5n, 6n]);
    const cache = await openTokenCache(join(folder, 'codes'));
    await expect(cache.read(3, 0, new Int32Array(3), 0)).rejects.toThrow(/c.npz have the shape \(2, 2\)/);
    await expect(cache.read(4, 0, new Int32Array(3), 0)).rejects.toThrow(/d.npz contain -4/);
    await mkdir(join(folder, 'empty/n01'), { recursive: true });
    await expect(openTokenCache(join(folder, 'empty'))).rejects.toThrow(/no .npz files in class folders/);
  });
});
