import * as tf from '@tensorflow/tfjs';

/** A collective operation under way: the result, once all processes have done their part. */
export type Pending<T> = () => Promise<T>;

/**
 * The processes that share a piece of work, as one of them sees it. All must call the same operations in the same
 * order; each throws ProcessError, with the name of the rank, where another one is gone.
 */
export interface Group {
  /** Which of them this is: 0 is the one that writes. */
  readonly rank: number;
  readonly size: number;
  /**
   * Starts to sum tensors over all processes, which need not live until it ends; what it gives are other tensors, of
   * the same shapes.
   */
  allReduce(tensors: readonly tf.Tensor[]): Pending<tf.Tensor[]>;
  /** One behind the other along the first axis, by rank: tensors of one shape, from all processes. */
  allGather<T extends tf.Tensor>(tensor: T): Promise<T>;
  /** The tensor of one rank, 0 if it is not said; all give one of its shape. */
  broadcast<T extends tf.Tensor>(tensor: T, root?: number): Promise<T>;
  /** The bytes of each process, by rank; they may be of different lengths. */
  allGatherBytes(bytes: Uint8Array): Promise<Uint8Array[]>;
  /** What rank 0 gives, which must be data that JSON can hold. */
  broadcastObject<T>(value: T): Promise<T>;
  /** Whether any process says so. */
  any(flag: boolean): Promise<boolean>;
  /** Leaves in order, once all have come so far. */
  leave(): Promise<void>;
  /** Tells the others that this process ends, and why; to be called instead of `leave`. */
  fail(error: unknown): Promise<void>;
}

/** A process by itself. */
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
