import { existsSync } from 'node:fs';
import { cp, link, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** The path of something that several test files need. It is made once per test run (whole-run.ts). */
async function shared(name: string, make: (path: string) => Promise<unknown>): Promise<string> {
  const path = join(process.env.ALITOK_TEST_SHARED!, name);
  if (existsSync(path)) return path;
  // Two processes may make it at the same time; each copy is complete before it is renamed.
  const own = `${path}.${process.pid}`;
  await make(own);
  await rename(own, path).catch(async (error) => {
    if (!existsSync(path)) throw error;
    await rm(own, { recursive: true });
  });
  return path;
}

/** Puts a copy of a folder that other test files need as well at `path`. */
export async function copyShared(
  name: string,
  path: string,
  make: (path: string) => Promise<unknown>,
): Promise<void> {
  await cp(await shared(name, make), path, { recursive: true });
}

/** Puts a large file that other test files need as well at `path`. Tests must not change it in place. */
export async function linkShared(
  name: string,
  path: string,
  write: (path: string) => Promise<unknown>,
): Promise<void> {
  await link(await shared(name, write), path);
}
