import type { Checkpointed } from '../run/checkpoint.js';
import type { Metrics } from '../run/metrics.js';

/** What the training loop runs: something that makes steps and can be saved. */
export interface Trainer extends Checkpointed {
  /** Steps to do in all (phases may end early). */
  readonly totalSteps: number;
  readonly finished: boolean;
  /** Makes the next step. @throws NonFiniteError before it changes anything, where the batch is bad */
  step(): Promise<Metrics>;
  /** Fresh values of all parameters. */
  initialize(): void;
  /** Spans of steps that take different times, with the state that each begins in; without it all steps are alike. */
  readonly spans?: readonly { steps: number; state: object }[];
  /** Counts the step that was not made because its batch was bad. */
  skip(): void;
  /** Milliseconds that the last step waited for its data. */
  readonly waited: number;
  /** Before a checkpoint: gives rank 0 what other processes hold of its parts. To be called by all. */
  gather?(): Promise<void>;
  /** After one, and after a state was taken: frees what other processes hold. */
  release?(): void;
  /** Numbers over all steps since the last call, such as codebook usage. */
  summary?(): Metrics;
  /** Ends what goes on beside the steps, such as decoding ahead. */
  close?(): Promise<void>;
  /** Frees all tensors. To be called however the training ends, after `close`. */
  dispose(): void;
}
