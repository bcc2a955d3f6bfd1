import type { Group } from '../engine/distributed/group.js';
import type { Engine } from '../engine/index.js';
import type { Reporter } from './reporter.js';

/** What a piece of work gets from the program that runs it. */
export interface Job {
  engine: Engine;
  /** The processes that share the work; absent where this one is alone. */
  group?: Group;
  /** The command line, for the run's record. */
  command: string;
  reporter: Reporter;
  /** Aborted by Ctrl-C or SIGTERM: the work saves what it can and ends with Interrupted. */
  signal: AbortSignal;
  /** From now on the log also goes to this file. */
  logTo(path: string): void;
}
