import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';

/** Bytes of memory that this process may use: those of the machine or its container. */
export function availableMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Peak memory of this process in bytes, since its start or, on Linux, since `resetPeakMemory`. */
export function peakMemory(): number {
  if (process.platform === 'linux') {
    const [, kibibytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    if (kibibytes !== undefined) return Number(kibibytes) * 1024;
  }
  return process.resourceUsage().maxRSS * 1024;
}

/** Resets the peak that `peakMemory` reports; has no effect on systems other than Linux. */
export function resetPeakMemory(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5', { flag: 'r+' });
  } catch {
    // Not Linux, or a container that forbids it: the peak since the start of the process remains.
  }
}

/** Free disk space in bytes for a folder, which need not exist yet. */
export async function freeDisk(folder: string): Promise<number> {
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = await statfs(existing);
  return bavail * bsize;
}
