import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../../src/engine/index.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import { failure, loadNative } from '../../../src/engine/libtorch/bridge.js';
import { EngineError } from '../../../src/errors.js';
import { canRun } from '../../support/engines.js';

/** The message that `body` throws: a one-line EngineError. */
function refusal(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    const { message } = error as Error;
    expect(message).not.toContain('\n');
    return message;
  }
  throw new Error('nothing was thrown');
}

describe('a bridge that does not load', () => {
  it('is not built: says what to install', () => {
    expect(refusal(() => loadNative('/nowhere/bridge.node'))).toMatch(
      /not built: install libtorch .*apt-get install libtorch-dev.*pip install torch.*npm run build:libtorch/,
    );
  });

  it('is not a library: says to build it again', async () => {
    const file = join(await mkdtemp(join(tmpdir(), 'alitok-')), 'bridge.node');
    await writeFile(file, 'not a library');
    expect(refusal(() => loadNative(file))).toMatch(/does not load; run "npm run build:libtorch" again: .*/);
  });
});

describe('messages of PyTorch', () => {
  const CUDA =
    'aten::bmm(self [1024, 273, 48], mat2 [1024, 48, 273]): CUDA out of memory. Tried to allocate 292.00 MiB. GPU 0 has a total capacity of 79.15 GiB of which 120.31 MiB is free. Including non-PyTorch memory, this process has 79.02 GiB memory in use. Of the allocated memory 76.10 GiB is allocated by PyTorch, and 2.20 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)';
  it.each([
    [
      CUDA,
      /^libtorch: aten::bmm\(self \[1024, 273, 48\], mat2 \[1024, 48, 273\]\): CUDA out of memory\. Tried to allocate 292\.00 MiB\..*; lower the batch size/,
    ],
    [
      'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nException raised from …',
      /^libtorch: CUDA error: CUBLAS_STATUS_ALLOC_FAILED .*; lower the batch size/,
    ],
    [
      "aten::full(size [99999, 99999]): [enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 39999200004 bytes. Error code 12 (Cannot allocate memory)",
      /^libtorch: aten::full\(size \[99999, 99999\]\): .* you tried to allocate 37\.3 GiB\. .*; lower the batch size/,
    ],
  ])('for memory that is not there: what it was for, how much, and what to lower', (words, line) => {
    expect(
      refusal(() => {
        throw failure(new Error(words));
      }),
    ).toMatch(line);
  });

  it('for anything else stay unchanged', () => {
    expect(failure(new Error('aten::add.Tensor: no such shapes\nin C++')).message).toBe(
      'libtorch: aten::add.Tensor: no such shapes',
    );
  });
});

describe.skipIf(!canRun('libtorch'))('errors of the libtorch engine', () => {
  beforeAll(async () => {
    await openEngine('libtorch');
  });

  it('an operation on a disposed tensor is an error with its name and argument', () => {
    const [a, b] = [tf.ones([2]), tf.ones([2])];
    b.dispose();
    expect(refusal(() => tf.add(a, b))).toMatch(/aten::add\.Tensor, other: the tensor is disposed/);
    expect(refusal(() => b.dataId && tf.backend().readSync(b.dataId))).toMatch(/the tensor is disposed/);
  });

  it('mismatched shapes are named with the operator', () => {
    const message = refusal(() => tf.engine().runKernel('Add', { a: tf.ones([2, 3]), b: tf.ones([4]) }));
    expect(message).toMatch(/aten::add\.Tensor\(self \[2, 3\], other \[4\]\)/);
  });

  it('a list of tensors is named with their shapes, and a disposed tensor in it is an error', () => {
    const message = refusal(() =>
      tf.engine().runKernel('Concat', { 0: tf.ones([2, 3]), 1: tf.ones([4]) } as never, { axis: 0 }),
    );
    expect(message).toMatch(/aten::cat\(tensors \[2, 3\] \[4\]\)/);
    const [a, b] = [tf.ones([2]), tf.ones([2])];
    b.dispose();
    expect(refusal(() => tf.engine().runKernel('Concat', [a, b] as never, { axis: 0 }))).toMatch(
      /aten::cat, tensors: the tensor is disposed/,
    );
  });

  it('an extra argument is an error', () => {
    const backend = tf.backend() as LibtorchBackend;
    expect(refusal(() => backend.call('neg', backend.id(tf.ones([1])), 1))).toMatch(
      /aten::neg: 2 arguments for 1 parameters/,
    );
  });

  it('out of memory for a new tensor: reports its size', () => {
    expect(refusal(() => (tf.backend() as LibtorchBackend).call('zeros', [2 ** 24, 2 ** 24], 6))).toMatch(
      /aten::zeros\(size \[16777216, 16777216\]\): can't allocate memory: .* GiB; lower the batch size/,
    );
  });

  it('out of memory: reports the operation, and what to lower', () => {
    const message = refusal(() =>
      tf
        .ones([1 << 12, 1])
        .matMul(tf.ones([1, 1 << 12]))
        .reshape([1, -1])
        .tile([1 << 21, 1]),
    );
    expect(message).toMatch(/aten::repeat\(self \[1, 16777216\]\).*memory.*; lower the batch size/);
  });

  it('a device that does not exist', async () => {
    await expect(openEngine('libtorch', { device: 'cuda:99' })).rejects.toThrow(
      /device: 'cuda:99': .*choose/,
    );
    await expect(openEngine('libtorch', { device: 'tpu' })).rejects.toThrow(
      /device: 'tpu' is not a device; choose cpu/,
    );
    await expect(openEngine('wasm', { precision: 'bf16' })).rejects.toThrow(
      /wasm does not support precision: 'bf16'/,
    );
  });
});
