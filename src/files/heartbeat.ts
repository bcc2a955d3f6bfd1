import { utimesSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

// The thread of `lockFolder` that touches the lock: training steps may block the main thread for minutes.

export interface HeartbeatData {
  /** The lock's file. */
  path: string;
  intervalMs: number;
  /** The first modification time, in seconds; each beat adds one. It is only compared, so clock jumps do no harm. */
  first: number;
}

const { path, intervalMs, first } = workerData as HeartbeatData;
let time = first;

function beat(): void {
  try {
    utimesSync(path, time, time);
  } catch {
    // `check` reports a lock that was removed.
  }
  time += 1;
}

beat();
setInterval(beat, intervalMs);
