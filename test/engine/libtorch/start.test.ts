import * as tf from '@tensorflow/tfjs';
import { beforeEach, expect, it, vi } from 'vitest';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import { startLibtorch } from '../../../src/engine/libtorch.js';

// Tests how the engine starts on a machine with a CUDA device, with a fake bridge that reports one.

/** The result of `alitok::cuda_kernels`; undefined if the bridge has no such operator. */
const { answer } = vi.hoisted(() => ({ answer: { kernels: undefined as string | undefined } }));

vi.mock('../../../src/engine/libtorch/bridge.js', async (original) => ({
  ...(await original<object>()),
  loadNative: () => ({
    version: '9.9.0',
    cudaDevices: () => 1,
    setThreads() {},
    deterministic() {},
    allowTF32() {},
    find: (name: string) => {
      if (name === 'alitok::cuda_kernels') return answer.kernels === undefined ? null : 1;
      return name === 'alitok::keep_memory' ? 2 : null;
    },
    call: (operator: number) => (operator === 1 ? answer.kernels : undefined),
  }),
}));

const start = (device: string) => {
  const description = startLibtorch({ threads: 1, device });
  return { description, ownKernels: (tf.engine().findBackend('libtorch') as LibtorchBackend).ownKernels };
};

beforeEach(() => {
  answer.kernels = undefined;
});

it('with our own kernels if the device supports them', () => {
  answer.kernels = '';
  expect(start('cuda')).toEqual({ description: 'PyTorch 9.9.0 on cuda:0', ownKernels: true });
});

it('without them if it does not, with the reason', () => {
  answer.kernels = 'ALITOK_CUDA_KERNELS is 0';
  expect(start('cuda:0')).toEqual({
    description: "PyTorch 9.9.0 on cuda:0, without alitok's own kernels: ALITOK_CUDA_KERNELS is 0",
    ownKernels: false,
  });
  answer.kernels = undefined;
  expect(start('cuda').description).toMatch(
    /without alitok's own kernels: the bridge was built without them$/,
  );
});

it('on the CPU they are not mentioned', () => {
  answer.kernels = '';
  expect(start('cpu')).toEqual({ description: 'PyTorch 9.9.0 on cpu', ownKernels: false });
});
