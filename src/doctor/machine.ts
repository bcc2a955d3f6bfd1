import { availableParallelism, cpus, freemem, loadavg } from 'node:os';
import { availableMemory, freeDisk } from '../machine.js';

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

/** Examines what this process may use. */
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
