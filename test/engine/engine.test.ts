import { availableParallelism } from 'node:os';
import { expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import { startTensorFlow } from '../../src/engine/tensorflow.js';
import { EngineError } from '../../src/errors.js';

it('an engine reports its actual threads, not the requested number', async () => {
  const threads = async (name: 'wasm' | 'cpu', asked?: number) =>
    (await openEngine(name, { threads: asked })).threads;
  expect(await threads('cpu', availableParallelism() + 3)).toBe(1);
  expect(await threads('wasm', 2)).toBe(2);
  expect(await threads('wasm', 3)).toBe(2); // the number is fixed at the first start
});

it('TensorFlow on an unsupported newer Node.js fails with a one-line message', () => {
  const start = () => startTensorFlow({});
  expect(start).toThrow(EngineError);
  expect(start).toThrow(
    /^engine: 'tensorflow' does not run on Node\.js \d+.*util\.isNullOrUndefined, .* use Node\.js 20 or 22/,
  );
});
