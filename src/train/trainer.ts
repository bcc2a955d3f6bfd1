import type { Checkpointed } from '../run/checkpoint.js';
import type { Metrics } from '../run/metrics.js';

/** What the training loop runs: a model with its data and optimizer, which makes steps and can be saved. */
export interface Trainer extends Checkpointed {
  /** Number of steps of the whole run; fewer if phases end early. */
  readonly totalSteps: number;
  readonly finished: boolean;
  /** Makes the next step. @throws NonFiniteError before anything changes, where loss or gradient is not finite */
  step(): Promise<Metrics>;
  /** Fresh values of all parameters. */
  initialize(): void;
  /** Stretches of steps that take different times, each with its first state; absent if all steps are alike. */
  readonly spans?: readonly { steps: number; state: object }[];
  /** Counts a step that was skipped because of a NonFiniteError. */
  skip(): void;
  /** Milliseconds that the last step waited for data. */
  readonly waited: number;
  /** Gives rank 0 the state that other processes hold, for a checkpoint. All processes must call it. */
  gather?(): Promise<void>;
  /** Frees the state of other processes after a checkpoint was saved or loaded. */
  release?(): void;
  /** Metrics over all steps since the last call, such as codebook usage. */
  summary?(): Metrics;
  /** Ends background work, such as decoding ahead. */
  close?(): Promise<void>;
  /** Frees all tensors. Must be called after `close`, however the training ends. */
  dispose(): void;
}
