import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

/**
 * What all files of a run have in common, as variables of the environment: a folder for what several of them need (made-once.ts),
 * and how many threads an engine takes. They share the processors, but fewer than two would leave kernels' parts untested.
 */
export default async function setUp({ vitest }: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'alitok-tests-'));
  const threads = Math.floor(availableParallelism() / (vitest.config.maxWorkers || 1));
  process.env.ALITOK_TEST_SHARED = folder;
  process.env.ALITOK_TEST_THREADS ??= String(Math.max(2, threads));
  process.env.GOMP_SPINCOUNT ??= '1000'; // PyTorch's threads that wait leave the processor to other tests soon
  return () => rm(folder, { recursive: true, force: true });
}
