import { existsSync } from 'node:fs';
import { cp, link, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** The path of what several test files need, which is made once in a run of the tests (whole-run.ts). */
async function shared(name: string, make: (path: string) => Promise<unknown>): Promise<string> {
  const path = join(process.env.ALITOK_TEST_SHARED!, name);
  if (existsSync(path)) return path;
  // Two processes may make it at once; either's is whole when it gets its name.
  const own = `${path}.${process.pid}`;
  await make(own);
  await rename(own, path).catch(async (error) => {
    if (!existsSync(path)) throw error;
    await rm(own, { recursive: true });
  });
  return path;
}

/** Puts a copy of a folder at `path` that other test files need as well. */
export async function copyShared(
  name: string,
  path: string,
  make: (path: string) => Promise<unknown>,
): Promise<void> {
  await cp(await shared(name, make), path, { recursive: true });
}

/** Puts a large file at `path` that other test files need as well. Nobody may change it in place. */
export async function linkShared(
  name: string,
  path: string,
  write: (path: string) => Promise<unknown>,
): Promise<void> {
  await link(await shared(name, write), path);
}
