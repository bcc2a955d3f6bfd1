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
  /**
   * Does work that is not to be broken off: Ctrl-C or SIGTERM aborts its signal, which it looks at to its end, saves what it
   * can and ends with Interrupted. Outside of such work they end the process at once.
   * @throws Interrupted too where the signal came after the work had last looked
   */
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  /** From now on the log also goes to this file. */
  logTo(path: string): void;
}
