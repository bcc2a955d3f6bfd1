import * as tf from '@tensorflow/tfjs';

/** A collective operation that has started; calling it waits for the result. */
export type Pending<T> = () => Promise<T>;

/**
 * A group of processes that share a piece of work. All must call the same operations in the same order. An operation throws
 * ProcessError, which names the rank, if another process has ended or stopped responding.
 */
export interface Group {
  /** The rank of this process. Rank 0 writes the results. */
  readonly rank: number;
  readonly size: number;
  /**
   * Starts to sum tensors over all processes. They may be disposed of before it ends; the sums are new tensors of the same
   * shapes.
   */
  allReduce(tensors: readonly tf.Tensor[]): Pending<tf.Tensor[]>;
  /** Concatenates tensors of one shape from all processes along the first axis, by rank. */
  allGather<T extends tf.Tensor>(tensor: T): Promise<T>;
  /** Returns the tensor of rank `root` (default 0); all processes pass one of its shape. */
  broadcast<T extends tf.Tensor>(tensor: T, root?: number): Promise<T>;
  /** Gathers bytes from all processes, by rank; their lengths may differ. */
  allGatherBytes(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** Returns the value of rank 0, which must be JSON data. */
  broadcastObject<T>(value: T): Promise<T>;
  /** Whether the flag is true in any process. */
  any(flag: boolean): Promise<boolean>;
  /** Leaves the group once all processes have called it. */
  leave(): Promise<void>;
  /** Leaves the group instead of `leave` after an error, which the others then report. */
  fail(error: unknown): Promise<void>;
}

/** The group of a single process. */
export const ALONE: Group = {
  rank: 0,
  size: 1,
  allReduce: (tensors) => {
    const copies = tensors.map((tensor) => tf.keep(tensor.clone()));
    return async () => copies;
  },
  allGather: async (tensor) => tensor.clone(),
  broadcast: async (tensor) => tensor.clone(),
  allGatherBytes: async (bytes) => [bytes],
  broadcastObject: async (value) => value,
  any: async (flag) => flag,
  leave: async () => {},
  fail: async () => {},
};
