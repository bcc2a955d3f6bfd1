import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import { loadNative } from '../../src/engine/libtorch/bridge.js';
import { EngineError } from '../../src/errors.js';
import { canRun } from '../engines.js';

/** What `body` throws: an EngineError of one line. */
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
  it('is not built: what to install', () => {
    expect(refusal(() => loadNative('/nowhere/bridge.node'))).toMatch(
      /not built: install libtorch .*apt-get install libtorch-dev.*pip install torch.*npm run build:libtorch/,
    );
  });

  it('is no library: build it again', async () => {
    const file = join(await mkdtemp(join(tmpdir(), 'alitok-')), 'bridge.node');
    await writeFile(file, 'not a library');
    expect(refusal(() => loadNative(file))).toMatch(/does not load; run "npm run build:libtorch" again: .*/);
  });
});

describe.skipIf(!canRun('libtorch'))('errors of the libtorch engine', () => {
  beforeAll(async () => {
    await openEngine('libtorch');
  });

  it('an operation on a tensor that is disposed of is caught, with its name and argument', () => {
    const [a, b] = [tf.ones([2]), tf.ones([2])];
    b.dispose();
    expect(refusal(() => tf.add(a, b))).toMatch(/aten::add\.Tensor, other: the tensor is disposed/);
    expect(refusal(() => b.dataId && tf.backend().readSync(b.dataId))).toMatch(/the tensor is disposed/);
  });

  it('shapes that do not fit are named with the operator', () => {
    const message = refusal(() => tf.engine().runKernel('Add', { a: tf.ones([2, 3]), b: tf.ones([4]) }));
    expect(message).toMatch(/aten::add\.Tensor\(self \[2, 3\], other \[4\]\)/);
  });

  it('memory that is not there: what it was for, and what to lower', () => {
    const message = refusal(() =>
      tf
        .ones([1 << 12, 1])
        .matMul(tf.ones([1, 1 << 12]))
        .reshape([1, -1])
        .tile([1 << 21, 1]),
    );
    expect(message).toMatch(/aten::repeat\(self \[1, 16777216\]\).*memory.*; lower the batch size/);
  });

  it('a device that is not there', async () => {
    await expect(openEngine('libtorch', { device: 'cuda:99' })).rejects.toThrow(/--device cuda:99: .*choose/);
    await expect(openEngine('libtorch', { device: 'tpu' })).rejects.toThrow(/no --device tpu; choose cpu/);
    await expect(openEngine('wasm', { precision: 'bf16' })).rejects.toThrow(
      /wasm cannot do --precision bf16/,
    );
  });
});
