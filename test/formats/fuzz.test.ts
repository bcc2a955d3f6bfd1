import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { ZipFile } from 'yazl';
import { openGraphDef } from '../../src/formats/graph-def.js';
import { openNpz, writeNpz } from '../../src/formats/npz.js';
import { openPytorch } from '../../src/formats/pytorch/file.js';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import { openSafetensors, writeSafetensors } from '../../src/formats/safetensors.js';
import type { TensorFile } from '../../src/formats/tensor-file.js';
import { fuzz } from '../support/fuzz.js';
import { constantNode, operationNode, versionField } from '../support/graph-file.js';
import { encodeNpy } from '../support/npy.js';

const COUNT = 10_000; // for each of a parser's two files
const SEED = 1;

vi.setConfig({ testTimeout: 300_000 }); // for a busy machine

const MEMORY = '/dev/shm'; // a file system in memory, where there is one: tens of thousands of files are written

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(existsSync(MEMORY) ? MEMORY : tmpdir(), 'fuzz-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function readAll(file: TensorFile): Promise<void> {
  try {
    for (const name of file.tensors.keys()) await file.read(name);
  } finally {
    await file.close();
  }
}

const tensors = [
  { name: 'latent', dtype: 'F32' as const, shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
  { name: 'steps', dtype: 'I64' as const, shape: [], data: BigInt64Array.of(7n) },
  { name: 'half', dtype: 'F16' as const, shape: [2], data: Uint16Array.of(0x3c00, 0x4000) },
];

/** A state dict in PyTorch's older format: a (2, 2) tensor and a view of it. */
function streamFile(): Buffer {
  const pickle = (body: string) => `\x80\x02${body}.`;
  const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`;
  const id = `(${text('storage')}ctorch\nFloatStorage\n${text('940')}${text('cpu')}K\x04Nt`;
  const tensor = (shape: string, strides: string) =>
    `ctorch._utils\n_rebuild_tensor_v2\n(${id}QK\x00${shape}${strides}\x89ccollections\nOrderedDict\n)RtR`;
  const dict = `ccollections\nOrderedDict\n)R(${text('w')}${tensor('K\x02K\x02\x86', 'K\x01K\x02\x86')}${text('v')}${tensor('K\x02\x85', 'K\x02\x85')}u`;
  const parts = [
    pickle('\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19'),
    pickle('M\xe9\x03'),
    pickle(`}(${text('little_endian')}\x88u`),
    pickle(dict),
    pickle(`](${text('940')}e`),
  ];
  return Buffer.concat([
    Buffer.from(parts.join(''), 'latin1'),
    Buffer.of(4, 0, 0, 0, 0, 0, 0, 0),
    Buffer.from(Float32Array.of(1, 2, 3, 4).buffer),
  ]);
}

/** Some damage goes unnoticed, for example in values, but most is refused. */
function expectBoth({ read, refused }: { read: number; refused: number }) {
  expect(read + refused).toBe(2 * COUNT);
  expect(read).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(COUNT / 2);
}

it('PyTorch files', async () => {
  await writePytorch(join(folder, 'whole.pth'), tensors, { note: 'x' });
  const files = [await readFile(join(folder, 'whole.pth')), streamFile()];
  const read = async (path: string) => readAll(await openPytorch(path));
  expectBoth(await fuzz(files, { path: join(folder, 'damaged.pth'), count: COUNT, seed: SEED, read }));
});

it('safetensors files', async () => {
  await writeSafetensors(join(folder, 'whole.safetensors'), tensors, { note: 'x' });
  await writeSafetensors(join(folder, 'one.safetensors'), tensors.slice(0, 1));
  const files = [
    await readFile(join(folder, 'whole.safetensors')),
    await readFile(join(folder, 'one.safetensors')),
  ];
  const read = async (path: string) => readAll(await openSafetensors(path));
  expectBoth(
    await fuzz(files, { path: join(folder, 'damaged.safetensors'), count: COUNT, seed: SEED, read }),
  );
});

it("TensorFlow's graphs", async () => {
  const nodes = [
    operationNode('Conv2D', 'Conv2D', 'weights'),
    constantNode({ name: 'weights', shape: [2, 3], values: Float32Array.of(1, 2, 3, 4, 5, 6) }),
    constantNode({ name: 'zeros', shape: [4], values: Float32Array.of(0), asFloats: true }),
    versionField(8),
  ];
  const files = [Buffer.concat(nodes), Buffer.concat(nodes.slice(1, 3))];
  const read = async (path: string) => readAll(await openGraphDef(path));
  const outcome = await fuzz(files, { path: join(folder, 'damaged.pb'), count: COUNT, seed: SEED, read });
  // Much of a graph consists of names that are not read, so more damage goes unnoticed than in other files.
  expect(outcome.read).toBeGreaterThan(100);
  expect(outcome.refused).toBeGreaterThan(COUNT / 4);
});

it('npz files, stored and deflated', async () => {
  const array = {
    name: 'arr_0',
    dtype: 'f4' as const,
    shape: [2, 3],
    data: Float32Array.of(1, 2, 3, 4, 5, 6),
  };
  const names = { name: 'names', dtype: 'u1' as const, shape: [4], data: Uint8Array.of(1, 2, 3, 4) };
  await writeNpz(join(folder, 'whole.npz'), [array, names]);
  const zip = new ZipFile();
  zip.addBuffer(Buffer.from(encodeNpy(array)), 'arr_0.npy', { compress: true });
  zip.end();
  const files = [await readFile(join(folder, 'whole.npz')), await buffer(zip.outputStream)];
  const read = async (path: string) => {
    const npz = await openNpz(path);
    try {
      for (const name of npz.names) {
        await npz.read(name);
        for await (const rows of npz.rows(name, 1)) expect(rows.byteLength).toBeGreaterThan(0);
      }
    } finally {
      npz.close();
    }
  };
  expectBoth(await fuzz(files, { path: join(folder, 'damaged.npz'), count: COUNT, seed: SEED, read }));
});
