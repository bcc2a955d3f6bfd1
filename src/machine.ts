import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';

/** Bytes of memory that this process may take: the machine's, or those of its container. */
export function availableMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Most bytes of memory that this process has taken so far. */
export function peakMemory(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Free bytes for files in a folder, or where that folder would be made. */
export async function freeDisk(folder: string): Promise<number> {
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = await statfs(existing);
  return bavail * bsize;
}
