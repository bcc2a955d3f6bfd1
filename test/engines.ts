import { beforeAll, describe } from 'vitest';
import { type EngineName, openEngine } from '../src/engine/index.js';

/** The engines this machine can run, or those that ALITOK_TEST_ENGINES names (comma separated). */
const engines = (process.env.ALITOK_TEST_ENGINES?.split(',') ?? ['wasm']) as EngineName[];

/** Runs a suite once for each engine. */
export function describeEngines(
  name: string,
  suite: (engine: EngineName) => void,
  extra: EngineName[] = [],
): void {
  for (const engine of new Set([...engines, ...extra])) {
    describe(`${name} on ${engine}`, () => {
      beforeAll(async () => {
        await openEngine(engine);
      });
      suite(engine);
    });
  }
}
