import type { Checkpointed } from '../checkpoint/training-checkpoint.js';

/** Numbers of one step for the metrics log, by name. */
export type Metrics = Record<string, number>;

/** What the training loop runs: something that makes steps and can be saved. */
export interface Trainer extends Checkpointed {
  /** Steps to do in all (phases may end early). */
  readonly totalSteps: number;
  readonly finished: boolean;
  /** Makes the next step. */
  step(): Promise<Metrics>;
  /** Fresh values of all parameters. */
  initialize(): void;
  /** Spans of steps that take different times, with the state that each begins in; without it all steps are alike. */
  readonly spans?: readonly { steps: number; state: object }[];
  /** Numbers over all steps since the last call, such as codebook usage. */
  summary?(): Metrics;
}
