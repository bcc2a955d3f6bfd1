import { availableParallelism } from 'node:os';
import { expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import { startTensorFlow } from '../../src/engine/tensorflow.js';
import { EngineError } from '../../src/errors.js';

it('an engine says the threads that it has, not those that were asked for', async () => {
  const threads = async (name: 'wasm' | 'cpu', asked?: number) =>
    (await openEngine(name, { threads: asked })).threads;
  expect(await threads('cpu', availableParallelism() + 3)).toBe(1);
  expect(await threads('wasm', 2)).toBe(2);
  expect(await threads('wasm', 3)).toBe(2); // it stays as it was started
});

it('TensorFlow on a Node.js that is too new for it says so in one line', () => {
  const start = () => startTensorFlow({});
  expect(start).toThrow(EngineError);
  expect(start).toThrow(
    /^engine: 'tensorflow' does not run on Node\.js \d+.*util\.isNullOrUndefined, .* use Node\.js 20 or 22/,
  );
});
