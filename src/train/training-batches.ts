import type { Batch, Position, TrainingLoader } from '../data/loader.js';
import type { Group } from '../engine/distributed/group.js';

/** Opens the endless sequence of training batches, at a position or at the start. */
export type OpenBatches = (position?: Position) => TrainingLoader;

/** The training batches of a trainer, opened when the first one is needed. */
export class TrainingImages {
  /** Milliseconds spent waiting for the last batch. */
  waited = 0;
  private loader?: TrainingLoader;
  private begin?: Position;

  constructor(private readonly open: OpenBatches) {}

  /** The next batch, or this process's part of it. */
  async next(): Promise<Batch> {
    this.loader ??= this.open(this.begin);
    const start = performance.now();
    const batch = await this.loader.next();
    this.waited = performance.now() - start;
    return batch;
  }

  /** The image files of a batch. */
  paths(batch: Batch): string[] {
    return this.loader!.paths(batch);
  }

  /** Where the next batch begins, for a checkpoint; undefined before the first of a new run. */
  get position(): Position | undefined {
    return this.loader?.position ?? this.begin;
  }

  set position(position: Position | undefined) {
    this.begin = position;
  }

  /** Before a checkpoint: tells all processes which files each could not read. */
  async gather(group: Group): Promise<void> {
    await this.loader?.gatherUnreadable(group);
  }

  async close(): Promise<void> {
    await this.loader?.close();
  }
}
