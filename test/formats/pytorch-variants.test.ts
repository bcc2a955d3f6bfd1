import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZipFile } from 'yazl';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { CheckpointError } from '../../src/errors.js';
import { pickleStateDict, writePytorch } from '../../src/formats/pytorch/write.js';
import { writeTrainingFile } from '../support/training-file.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'variants-'));
});
afterAll(() => rm(folder, { recursive: true }));

const one = (name: string) => ({ name, dtype: 'F32' as const, shape: [2], data: Float32Array.of(1, 2) });

/** A zip like PyTorch's, with deflated entries. */
async function deflatedZip(name: string, entries: Record<string, Buffer>): Promise<string> {
  const path = join(folder, name);
  const zip = new ZipFile();
  for (const [entry, content] of Object.entries(entries))
    zip.addBuffer(content, `archive/${entry}`, { compress: true });
  zip.end();
  await pipeline(zip.outputStream, createWriteStream(path));
  return path;
}

describe('prefixes of wrappers', () => {
  const namesOf = async (...names: string[]) => {
    const path = join(folder, 'wrapped.pth');
    await writePytorch(path, names.map(one));
    const file = await openTensorFile(path);
    await file.close();
    return [...file.tensors.keys()];
  };

  it('are removed if all names have them', async () => {
    expect(await namesOf('module.a.weight', 'module.b')).toEqual(['a.weight', 'b']);
    expect(await namesOf('_orig_mod.module.a', '_orig_mod.module.b')).toEqual(['a', 'b']);
  });

  it('are kept if one name lacks it: a part of the model may have that name', async () => {
    expect(await namesOf('module.a', 'b')).toEqual(['module.a', 'b']);
  });
});

describe('several sets of weights in a training file', () => {
  /** A state dict of one tensor with one value. */
  const set = (name: string, value: number) => ({ [name]: { shape: [1], data: Float32Array.of(value) } });
  const save = async (name: string, parts: Parameters<typeof writeTrainingFile>[1]) => {
    await writeTrainingFile(join(folder, name), parts);
    return join(folder, name);
  };
  const read = async (path: string) => {
    const file = await openTensorFile(path);
    const [name] = file.tensors.keys();
    const [value] = (await file.read(name)) as Float32Array;
    await file.close();
    return { name, value, choice: file.choice };
  };

  it("the model's is chosen, and the others are listed, which #KEY selects", async () => {
    const path = await save('both.pth', { ema: set('w', 1), opt: set('x', 2), model: set('module.w', 3) });
    const choice = { taken: 'model', others: ['ema', 'opt'] };
    expect(await read(path)).toEqual({ name: 'w', value: 3, choice });
    expect(await read(`${path}#ema`)).toEqual({ name: 'w', value: 1, choice: undefined });
    expect(await read(`${path}#model`)).toEqual({ name: 'w', value: 3, choice: undefined });
    await expect(read(`${path}#emma`)).rejects.toThrow(
      /no weights under emma; it has them under ema, opt, model$/,
    );
  });

  it('are listed if none is known to be the model', async () => {
    const path = await save('others.pth', { net: set('w', 1), net_ema: set('w', 2) });
    await expect(read(path)).rejects.toThrow(
      /has weights under net, net_ema, none of which .*others\.pth#net$/,
    );
    expect((await read(`${path}#net_ema`)).value).toBe(2);
  });

  it('a tensor beside the model, such as the state of a random generator, is not mistaken for it', async () => {
    const state = { shape: [2], data: Float32Array.of(7, 8) };
    const path = await save('rng.pth', { rng_state: state, model: set('w', 1) });
    expect(await read(path)).toMatchObject({ name: 'w', value: 1 });
  });

  it('are not in other files, whose own names may contain a #', async () => {
    const path = join(folder, 'a#b.pth');
    await writePytorch(path, [one('w')]);
    expect((await read(path)).value).toBe(1);
    await expect(read(`${path}#ema`)).rejects.toThrow(/a#b\.pth has one set of weights; leave out #ema/);
    const { writeSafetensors } = await import('../../src/formats/safetensors.js');
    const plain = join(folder, 'plain.safetensors');
    await writeSafetensors(plain, [one('w')]);
    await expect(read(`${plain}#ema`)).rejects.toThrow(/plain\.safetensors is no training file of PyTorch/);
    await expect(read(join(folder, 'none.pth#ema'))).rejects.toThrow(
      /cannot open .*none\.pth#ema: no such file/,
    );
  });

  it('the count of an AveragedModel is left out', async () => {
    const path = join(folder, 'averaged.pth');
    await writePytorch(path, ['n_averaged', 'module.a', 'module.b'].map(one));
    const file = await openTensorFile(path);
    await file.close();
    expect([...file.tensors.keys()]).toEqual(['a', 'b']);
  });
});

describe('deflated entries', () => {
  const data = Float32Array.from({ length: 5000 }, (_, i) => i % 7);
  const tensor = { name: 'x', dtype: 'F32' as const, shape: [50, 100], data };
  const parts = { 'data.pkl': pickleStateDict([tensor]), 'data/0': Buffer.from(data.buffer) };

  it('give the same tensors', async () => {
    const file = await openTensorFile(await deflatedZip('deflated.pth', parts));
    expect(await file.read('x')).toEqual(data);
    await file.close();
  });

  it('are refused if they unpack to another size than they claim', async () => {
    const path = await deflatedZip('short.pth', { ...parts, 'data/0': Buffer.alloc(4 * 4999) });
    await expect(openTensorFile(path)).rejects.toThrow(/storage 0 should have 20000 bytes and has 19996/);
  });
});

describe('tensors with a dtype of their own (_rebuild_tensor_v3)', () => {
  const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
  const pickle = (dtype: string, bytes: number, offset = 0) => {
    const id = `(${text('storage')}ctorch.storage\nUntypedStorage\n${text('0')}${text('cpu')}K${String.fromCharCode(bytes)}tQ`;
    const args = `(${id}K${String.fromCharCode(offset)}K\x02\x85K\x01\x85\x89Nctorch\n${dtype}\nt`;
    return Buffer.from(`\x80\x02}(${text('x')}ctorch._utils\n_rebuild_tensor_v3\n${args}Ru.`, 'latin1');
  };
  const open = async (dtype: string, content: Buffer, offset?: number) =>
    openTensorFile(
      await deflatedZip(`${dtype}.pth`, {
        'data.pkl': pickle(dtype, content.length, offset),
        'data/0': content,
      }),
    );

  it('are read, with offsets in elements', async () => {
    const content = Buffer.from(Uint16Array.of(7, 65535, 258).buffer);
    const file = await open('uint16', content, 1);
    expect(file.tensors.get('x')).toMatchObject({ dtype: 'U16', shape: [2] });
    expect(await file.read('x')).toEqual(Uint16Array.of(65535, 258));
    await file.close();
    const floats = await open('float32', Buffer.from(Float32Array.of(1.5, -2).buffer));
    expect(await floats.read('x')).toEqual(Float32Array.of(1.5, -2));
    await floats.close();
  });

  it('are refused beyond their storage, in half elements and of other dtypes', async () => {
    await expect(open('uint32', Buffer.alloc(8), 1)).rejects.toThrow(/lies outside of its storage of 2/);
    await expect(open('uint32', Buffer.alloc(9))).rejects.toThrow(/9 elements is not a whole number of U32/);
    await expect(open('complex64', Buffer.alloc(16))).rejects.toThrow(/import torch\.complex64/);
  });
});

describe('descriptions of our own files', () => {
  const describing = async (description: unknown) => {
    const { writeSafetensors } = await import('../../src/formats/safetensors.js');
    const { kindOf } = await import('../../src/checkpoint/kinds.js');
    const path = join(folder, 'described.safetensors');
    await writeSafetensors(path, [one('w')], { alitok: JSON.stringify(description) });
    return kindOf(path);
  };
  const network = { image_size: 32, classes: 3, channels: [8, 16] };

  it('are refused with sizes that no model has, or another structure', async () => {
    const own = { kind: 'feature-network', network, classNames: ['a'] };
    expect(await describing(own)).toBe('feature-network');
    for (const [wrong, message] of [
      [{ ...own, network: { ...network, image_size: 1e12 } }, /network\.image_size/],
      [{ ...own, network: { ...network, channels: [8, -1] } }, /network\.channels\.1/],
      [{ ...own, network: { ...network, channels: new Array(100).fill(8) } }, /network\.channels/],
      [{ ...own, kind: 'program' }, /kind/],
      [[], /damaged/],
    ] as const) {
      await expect(describing(wrong)).rejects.toThrow(CheckpointError);
      await expect(describing(wrong)).rejects.toThrow(message);
    }
    const sizes = {
      width: 8,
      layers: 1e9,
      heads: 2,
      classes: 3,
      codebook_size: 8,
      prefix_tokens: 3,
      grid: 2,
    };
    const generator = { kind: 'generator', generator: sizes, classNames: [], sample: {} };
    await expect(describing(generator)).rejects.toThrow(/generator\.layers/);
  });

  it('are refused if they are not JSON', async () => {
    const { writeSafetensors } = await import('../../src/formats/safetensors.js');
    const { kindOf } = await import('../../src/checkpoint/kinds.js');
    const path = join(folder, 'text.safetensors');
    await writeSafetensors(path, [one('w')], { alitok: '{' });
    await expect(kindOf(path)).rejects.toThrow(/its description is damaged/);
    await writeFile(path, 'text');
    await expect(kindOf(path)).rejects.toThrow(CheckpointError);
  });
});
