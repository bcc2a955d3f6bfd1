import * as tf from '@tensorflow/tfjs';
import type { Group, Pending } from './group.js';

/** The bytes of one all-reduce: enough to be worth a message, few enough to start early. */
const BUCKET_BYTES = 25 * 2 ** 20;

/**
 * All-reduces gradients while others are still being computed: they are added in the order in which the backward pass finishes
 * them, which is the same in all processes, and each full bucket is sent at once.
 */
export class Buckets {
  private waiting: { index: number; tensor: tf.Tensor }[] = [];
  private bytes = 0;
  private readonly sent: { indices: number[]; sums: Pending<tf.Tensor[]> }[] = [];

  constructor(
    private readonly group: Group,
    private readonly size = BUCKET_BYTES,
  ) {}

  /** Adds the next tensor and keeps it beyond any scope; `index` is the place of its sum in the result. */
  add(index: number, tensor: tf.Tensor): void {
    this.waiting.push({ index, tensor: tf.keep(tensor) });
    this.bytes += tensor.size * Float32Array.BYTES_PER_ELEMENT;
    if (this.bytes >= this.size) this.flush();
  }

  /** Sends the tensors added since the last bucket. */
  flush(): void {
    if (this.waiting.length === 0) return;
    const tensors = this.waiting.map(({ tensor }) => tensor);
    const sums = this.group.allReduce(tensors);
    tf.dispose(tensors);
    this.sent.push({ indices: this.waiting.map(({ index }) => index), sums });
    this.waiting = [];
    this.bytes = 0;
  }

  /** All sums by index, after the last `flush`; undefined where nothing was added. */
  async finish(): Promise<(tf.Tensor | undefined)[]> {
    const result: (tf.Tensor | undefined)[] = [];
    for (const { indices, sums } of this.sent) {
      const tensors = await sums();
      for (const [i, index] of indices.entries()) result[index] = tensors[i];
    }
    return result;
  }
}
