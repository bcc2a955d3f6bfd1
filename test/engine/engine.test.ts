import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import { chooseDevice, deviceNames } from '../../src/engine/devices.js';
import { openEngine } from '../../src/engine/index.js';
import { EngineError } from '../../src/errors.js';

it('an engine reports its actual threads, not the requested number', async () => {
  const threads = async (name: 'wasm' | 'cpu', asked?: number) =>
    (await openEngine(name, { threads: asked })).threads;
  expect(await threads('cpu', availableParallelism() + 3)).toBe(1);
  expect(await threads('wasm', 2)).toBe(2);
  expect(await threads('wasm', 3)).toBe(2); // the number is fixed at the first start
});

describe('the device', () => {
  const choose = (devices: number, device?: string, localRank?: number) =>
    chooseDevice({ device, localRank }, devices, 'this library', 'install another');

  it('is a CUDA device if there is one, that of the rank on this machine', () => {
    expect(choose(0)).toBe('cpu');
    expect(choose(2)).toBe('cuda:0');
    expect(choose(2, 'cuda', 3)).toBe('cuda:1');
    expect(choose(2, 'cuda:1')).toBe('cuda:1');
    expect(choose(2, 'cpu', 1)).toBe('cpu');
    expect(deviceNames(2)).toEqual(['cpu', 'cuda:0', 'cuda:1']);
  });

  it('must exist', () => {
    expect(() => choose(0, 'cuda')).toThrow(EngineError);
    expect(() => choose(0, 'cuda')).toThrow(
      /'cuda': this library sees no CUDA device; choose .*'cpu', or install another$/,
    );
    expect(() => choose(2, 'cuda:2')).toThrow(/sees 2 CUDA devices; choose cuda:0 to cuda:1$/);
    expect(() => choose(2, 'gpu')).toThrow(/'gpu' is not a device; choose cpu, cuda, or cuda:N$/);
  });

  it('other than the CPU, and precisions other than float32, are refused by engines without them', async () => {
    await expect(openEngine('wasm', { device: 'cuda' })).rejects.toThrow(/wasm does not support .*'cuda'/);
    for (const options of [{ precision: 'bf16' as const }, { tf32: true }])
      await expect(openEngine('tensorflow', options)).rejects.toThrow(
        /the engine tensorflow does not support .*; use .*'libtorch'/,
      );
  });
});
