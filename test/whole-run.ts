import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

/**
 * Sets environment variables for all test files of a run: a folder for shared files (made-once.ts), and the number of threads
 * of an engine. Test files share the processors, but with fewer than two threads, parts of kernels would stay untested.
 */
export default async function setUp({ vitest }: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'alitok-tests-'));
  const threads = Math.floor(availableParallelism() / (vitest.config.maxWorkers || 1));
  process.env.ALITOK_TEST_SHARED = folder;
  process.env.ALITOK_TEST_THREADS ??= String(Math.max(2, threads));
  process.env.GOMP_SPINCOUNT ??= '1000'; // waiting threads of PyTorch soon leave the processor to other tests
  return () => rm(folder, { recursive: true, force: true });
}
