import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import { ALONE } from '../engine/distributed/group.js';
import type { Interrupted } from '../errors.js';
import type { Job } from './job.js';
import { turn } from './job.js';
import type { ProgressOptions } from './reporter.js';

/** Arrays that a process sends to rank 0, by name. Every process sends the same names and types. */
export type Arrays = Parameters<typeof gatherArrays>[1];

/** What `compute` can tell the user while a batch takes long. */
export interface Round {
  /** Images that were done before this round. */
  readonly done: number;
  /** Moves the progress bar. */
  update(done: number): void;
}

/** When and how work ends early. */
export interface Stop {
  readonly signal: AbortSignal;
  /** The error to end with, after `done` images. */
  error(done: number): Interrupted;
}

export interface RoundsOptions<Batch, Made extends Arrays> {
  /** The progress bar; `start` is the number of images that are done already. */
  readonly progress: ProgressOptions;
  /**
   * Computes one of this process's batches. A batch may be empty, as in the last round of some processes: then `count`
   * must be 0 for what it returns.
   */
  compute(batch: Batch, round: Round): Made | Promise<Made>;
  /** The number of images that arrays are of. */
  count(made: Made): number;
  /** Takes the arrays of one batch; called on rank 0 only, in the order in which one process computes the batches. */
  take(made: Made): void | Promise<void>;
  /** Ends the work between rounds, on all processes together if the signal is aborted on one of them. */
  readonly stop?: Stop;
}

/**
 * Runs over batches in rounds. In a round each process computes one batch, and rank 0 takes the results of all of them in
 * order, so the outcome does not depend on the number of processes. The event loop turns after each round, so that
 * signals arrive and decoding goes on; the signal is checked before each round. `batches` must yield equally often on
 * every process.
 * @returns the number of images done, including `progress.start`; the same on every process
 * @throws Interrupted where the signal of `stop` is aborted
 */
export async function runRounds<Batch, Made extends Arrays>(
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  { progress: shown, compute, count, take, stop }: RoundsOptions<Batch, Made>,
  { reporter, group = ALONE }: Pick<Job, 'reporter' | 'group'>,
): Promise<number> {
  const progress = reporter.progress(shown);
  const update = (done: number) => progress.update(done);
  let done = shown.start ?? 0;
  try {
    for await (const batch of batches) {
      if (stop && (await group.any(stop.signal.aborted))) throw stop.error(done);
      const own = await compute(batch, { done, update });
      for (const made of await gatherArrays(group, own)) {
        const images = count(made);
        if (images > 0 && group.rank === 0) await take(made);
        done += images;
      }
      update(done);
      await turn();
    }
  } finally {
    progress.stop();
  }
  return done;
}
