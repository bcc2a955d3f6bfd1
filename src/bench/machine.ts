import { statfs } from 'node:fs/promises';
import { availableParallelism, cpus, freemem, loadavg, totalmem } from 'node:os';

/** What this process may use of the machine. */
export interface Machine {
  processor: string;
  /** That this process may run on; a container or `taskset` may leave it fewer than there are. */
  processors: number;
  installed: number;
  /** Bytes that this process may take, and bytes that are free now. */
  memory: number;
  freeMemory: number;
  /** Free bytes of the disk of the current folder. */
  freeDisk: number;
  /** Processes that wanted a processor during the last minute. */
  load: number;
}

/** Bytes of memory that this process may take. */
export function availableMemory(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Free bytes for files in a folder that exists. */
export async function freeDisk(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

export async function describeMachine(): Promise<Machine> {
  const all = cpus();
  return {
    processor: all[0]?.model.trim() || process.arch,
    processors: availableParallelism(),
    installed: all.length,
    memory: availableMemory(),
    freeMemory: Math.min(freemem(), availableMemory()),
    freeDisk: await freeDisk('.'),
    load: loadavg()[0],
  };
}
