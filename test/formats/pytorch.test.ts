import { spawn, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/checkpoint/open.js';
import type { TypedArray } from '../../src/files/bytes.js';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import type { Dtype } from '../../src/formats/tensor-file.js';

const PYTHON = '/usr/bin/python3';
// A folder of libraries alone has no origin.
const FIND =
  'import importlib.util, sys; sys.exit(not getattr(importlib.util.find_spec("torch"), "origin", None))';
const torch = spawnSync(PYTHON, ['-c', FIND]).status === 0;

/** Runs the code on each input line, and answers with its output. */
const LOOP = `
import collections, contextlib, io, json, sys, torch, traceback
for line in sys.stdin:
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(json.loads(line), {'torch': torch, 'collections': collections})
    except Exception:
        error = traceback.format_exc()
    print(json.dumps({'printed': printed.getvalue(), 'error': error}), flush=True)
`;

/** One Python for all tests, since loading PyTorch takes seconds. Returns a function that runs code and gives its output. */
function startPython(cwd: string) {
  const { stdin, stdout } = spawn(PYTHON, ['-c', LOOP], { cwd, stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const run = async (code: string): Promise<string> => {
    stdin.write(`${JSON.stringify(code)}\n`);
    const { printed, error } = JSON.parse((await answers.next()).value);
    if (error) throw new Error(error);
    return printed;
  };
  return Object.assign(run, { end: () => stdin.end() });
}

let folder: string;
let python: ReturnType<typeof startPython>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pytorch-'));
  if (torch) python = startPython(folder);
});
afterAll(async () => {
  python?.end();
  await rm(folder, { recursive: true });
});

const values: [Dtype, TypedArray][] = [
  ['F64', Float64Array.of(Math.PI, -0, 1e300)],
  ['F32', Float32Array.of(1.5, -2.25, 3e38)],
  ['F16', Uint16Array.of(0x3c00, 0xc000, 0x7bff)],
  ['BF16', Uint16Array.of(0x3f80, 0xc000, 0x7f7f)],
  ['I64', BigInt64Array.of(-1n, 2n ** 62n, 3n)],
  ['I32', Int32Array.of(-1, 2 ** 30, 5)],
  ['I16', Int16Array.of(-32768, 1, 2)],
  ['I8', Int8Array.of(-128, 127, 1)],
  ['U8', Uint8Array.of(0, 255, 7)],
  ['BOOL', Uint8Array.of(0, 1, 1)],
];
const tensors = [
  ...values.map(([dtype, data]) => ({ name: `t.${dtype}`, dtype, shape: [3, 1], data })),
  { name: 'scalar', dtype: 'F32' as const, shape: [], data: () => Float32Array.of(4) },
  { name: 'empty', dtype: 'F32' as const, shape: [0, 2], data: new Float32Array(0) },
];

describe('a file of our own', () => {
  it('round-trips every dtype and the metadata', async () => {
    const path = join(folder, 'own.pth');
    await writePytorch(path, tensors, { note: 'ä"\n' });
    const file = await openTensorFile(path);
    expect(file.metadata).toEqual({ note: 'ä"\n' });
    expect([...file.tensors.keys()]).toEqual(tensors.map(({ name }) => name));
    for (const [dtype, data] of values) {
      expect(file.tensors.get(`t.${dtype}`)).toMatchObject({ dtype, shape: [3, 1] });
      expect(await file.read(`t.${dtype}`)).toEqual(data);
    }
    expect(await file.read('scalar')).toEqual(Float32Array.of(4));
    expect(await file.read('empty')).toEqual(new Float32Array(0));
    await file.close();
  });

  it('is refused for a dtype that PyTorch lacks, and leaves nothing', async () => {
    const before = await readdir(folder);
    const wide = [{ name: 'x', dtype: 'U32' as const, shape: [1], data: new Uint32Array(1) }];
    await expect(writePytorch(join(folder, 'no.pth'), wide)).rejects.toThrow(/x has dtype U32/);
    expect(await readdir(folder)).toEqual(before);
  });

  it.skipIf(!torch)('is what torch.load reads, with and without weights_only', async () => {
    await writePytorch(join(folder, 'out.pth'), tensors, { note: 'x' });
    const printed = await python(`
for safe in (False, True):
    d = torch.load('out.pth', weights_only=safe)
    print(type(d).__name__, ' '.join(d), list(d['scalar'].shape), list(d['empty'].shape))
    for v in d.values(): print(v.dtype, v.flatten().tolist())
`);
    const names = tensors.map(({ name }) => name).join(' ');
    const lines = [
      `OrderedDict ${names} [] [0, 2]`,
      'torch.float64 [3.141592653589793, -0.0, 1e+300]',
      'torch.float32 [1.5, -2.25, 3.0000000054977558e+38]',
      'torch.float16 [1.0, -2.0, 65504.0]',
      'torch.bfloat16 [1.0, -2.0, 3.3895313892515355e+38]',
      'torch.int64 [-1, 4611686018427387904, 3]',
      'torch.int32 [-1, 1073741824, 5]',
      'torch.int16 [-32768, 1, 2]',
      'torch.int8 [-128, 127, 1]',
      'torch.uint8 [0, 255, 7]',
      'torch.bool [False, True, True]',
      'torch.float32 [4.0]',
      'torch.float32 []',
    ];
    expect(printed.trim().split('\n')).toEqual([...lines, ...lines]);
  });
});

describe.skipIf(!torch).each(['True', 'False'])('what PyTorch writes, zip format: %s', (zip) => {
  const save = async (value: string) => {
    const path = `saved-${zip}-${(await readdir(folder)).length}.pth`;
    await python(`
x = torch.arange(24, dtype=torch.float32).reshape(4, 6)
torch.save(${value}, '${path}', _use_new_zipfile_serialization=${zip})`);
    return openTensorFile(join(folder, path));
  };

  it('views, shared storages and tensors in any order of memory', async () => {
    const file = await save(
      '{"whole": x, "offset": x[1:3], "column": x[:, 2], "turned": x.t(), "steps": x[::2, 1::3],' +
        '"repeated": x[0, :2].expand(3, 2), "scalar": x[3, 5], "empty": x[4:],' +
        '"channels_last": torch.arange(8.).reshape(1, 2, 2, 2).contiguous(memory_format=torch.channels_last)}',
    );
    const expected: Record<string, [shape: number[], number[]]> = {
      whole: [[4, 6], Array.from({ length: 24 }, (_, i) => i)],
      offset: [[2, 6], Array.from({ length: 12 }, (_, i) => i + 6)],
      column: [[4], [2, 8, 14, 20]],
      turned: [[6, 4], Array.from({ length: 24 }, (_, i) => Math.floor(i / 4) + 6 * (i % 4))],
      steps: [
        [2, 2],
        [1, 4, 13, 16],
      ],
      repeated: [
        [3, 2],
        [0, 1, 0, 1, 0, 1],
      ],
      scalar: [[], [23]],
      empty: [[0, 6], []],
      channels_last: [
        [1, 2, 2, 2],
        [0, 1, 2, 3, 4, 5, 6, 7],
      ],
    };
    expect([...file.tensors.keys()]).toEqual(Object.keys(expected));
    for (const [name, [shape, data]] of Object.entries(expected)) {
      expect(file.tensors.get(name)!.shape).toEqual(shape);
      expect(await file.read(name)).toEqual(Float32Array.from(data));
    }
    await file.close();
  });

  it('half, bfloat16 and double as float32; long unchanged', async () => {
    const numbers = 'torch.tensor([1.5, -2.0, 0.333251953125])';
    const file = await save(
      `{"h": ${numbers}.half(), "b": ${numbers}.bfloat16(), "d": ${numbers}.double(), "l": torch.tensor([-1, 2**62])}`,
    );
    expect(await file.readFloat32('h')).toEqual(Float32Array.of(1.5, -2, 0.333251953125));
    expect(await file.readFloat32('b')).toEqual(Float32Array.of(1.5, -2, 0.333984375));
    expect(await file.readFloat32('d')).toEqual(Float32Array.of(1.5, -2, 0.333251953125));
    expect(await file.read('l')).toEqual(BigInt64Array.of(-1n, 2n ** 62n));
    await expect(file.readFloat32('l')).rejects.toThrow(/l has dtype I64/);
    await file.close();
  });

  it('parameters, modules and training files', async () => {
    const linear = await save('torch.nn.Linear(3, 2).state_dict()');
    expect([...linear.tensors.keys()]).toEqual(['weight', 'bias']);
    const parameters = await save('{"p": torch.nn.Parameter(x)}');
    expect(await parameters.read('p')).toEqual(Float32Array.from({ length: 24 }, (_, i) => i));
    const nested = await save(
      '{"step": 5, "scale": 2.5, "name": "ä", "big": 2**70, "model_state": collections.OrderedDict(x=x[:1]),' +
        '"optimizer": {"state": {0: {"exp_avg": x}}, "param_groups": [{"betas": (0.9, 0.999), "none": None}]}}',
    );
    expect([...nested.tensors.keys()]).toEqual(['x']);
    for (const file of [linear, parameters, nested]) await file.close();
    await expect(save('{"step": 5}')).rejects.toThrow(/has no state dict.*it has step/);
  });

  it('whole modules are refused by name', async () => {
    await expect(save('torch.nn.Linear(3, 2)')).rejects.toThrow(
      /wants to import torch\.nn\.modules\.linear\.Linear, which is refused/,
    );
  });
});

it.skipIf(!torch)('pickles of every protocol that PyTorch reads', async () => {
  for (const protocol of [2, 3, 4]) {
    for (const zip of ['True', 'False']) {
      await python(
        `torch.save({'a': torch.tensor([[1., 2.]])}, 'p.pth', pickle_protocol=${protocol}, _use_new_zipfile_serialization=${zip})`,
      );
      const file = await openTensorFile(join(folder, 'p.pth'));
      expect(await file.read('a'), `${protocol}`).toEqual(Float32Array.of(1, 2));
      await file.close();
    }
  }
});

it('a pickle that names another function is refused without calling it', async () => {
  const path = join(folder, 'evil.pth');
  await writeFile(path, Buffer.from(`\x80\x02cos\nsystem\n(X\x04\0\0\0truetR.`, 'latin1'));
  await expect(openTensorFile(path)).rejects.toThrow(/wants to import os\.system, which is refused/);
});
