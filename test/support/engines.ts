import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe } from 'vitest';
import { type EngineName, type EngineOptions, openEngine } from '../../src/engine/index.js';
import { pretendCuda } from '../aten/pretend-cuda.js';
import { loadEmulated } from '../cuda/emulate.js';

/** Whether an engine's native module was built. */
const built = (module: string) =>
  existsSync(fileURLToPath(new URL(`../../dist/engine/${module}.node`, import.meta.url)));

/** The engines this machine can run, or those that ALITOK_TEST_ENGINES names (comma separated). */
const here = [
  'wasm',
  ...(built('libtorch/bridge') ? ['libtorch'] : []),
  ...(built('tensorflow/binding') ? ['tensorflow'] : []),
];
const engines = (process.env.ALITOK_TEST_ENGINES?.split(',') ?? here) as EngineName[];

/** Values of ALITOK_TEST_DEVICE for a pretended CUDA device (aten/pretend-cuda.ts), without and with our own kernels. */
export const PRETENDED = 'pretended-cuda';
export const PRETENDED_WITH_KERNELS = 'pretended-cuda-with-kernels';

/** The device that the libtorch engine is tested on. */
export const device = process.env.ALITOK_TEST_DEVICE ?? 'cpu';

/** Whether tests of an engine can run here. */
export const canRun = (engine: EngineName): boolean => engines.includes(engine);

/** Number of threads of an engine in a test; more than one (whole-run.ts). */
export const threads = Number(process.env.ALITOK_TEST_THREADS);

/** Opens an engine with the settings of the tests. */
export async function openTested(engine: EngineName, options: EngineOptions = {}): Promise<void> {
  const ownKernels = device === PRETENDED_WITH_KERNELS;
  const pretended = device === PRETENDED || ownKernels;
  const own = engine === 'libtorch' ? { ...options, device: pretended ? 'cpu' : device } : {};
  await openEngine(engine, { threads, ...own });
  if (engine !== 'libtorch' || !pretended) return;
  if (ownKernels) await loadEmulated();
  pretendCuda({}, { ownKernels });
}

/** Runs a suite once for each engine. */
export function describeEngines(
  name: string,
  suite: (engine: EngineName) => void,
  extra: EngineName[] = [],
): void {
  for (const engine of new Set([...engines, ...extra])) {
    describe(`${name} on ${engine}`, () => {
      beforeAll(() => openTested(engine), 300_000);
      suite(engine);
    });
  }
}
