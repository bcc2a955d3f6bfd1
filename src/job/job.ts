import type { Group } from '../engine/distributed/group.js';
import type { Engine } from '../engine/index.js';
import type { Reporter } from './reporter.js';

/** What a long task gets from the program that runs it. */
export interface Job {
  engine: Engine;
  /** The processes that share the work; absent if there is only one. */
  group?: Group;
  /** The command line, which is written to the run's record. */
  command: string;
  reporter: Reporter;
  /**
   * Runs work that must not be killed halfway. Ctrl-C or SIGTERM aborts the signal; the work checks it until its end, saves
   * its state and throws Interrupted. Outside such work, both end the process at once.
   * @throws Interrupted also if the signal arrived after the work last checked it
   */
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>;
  /** Also writes the log to this file from now on. */
  logTo(path: string): void;
}

/**
 * Lets the event loop turn once. Engines block it while they compute; signals, decoded images and terminal output are
 * handled only when it turns.
 */
export function turn(): Promise<void> {
  return new Promise(setImmediate);
}
