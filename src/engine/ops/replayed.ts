import * as tf from '@tensorflow/tfjs';

/** A step that a device has recorded. */
export interface Recording {
  /** Queues the step's work again without running the step on the host. */
  replay(): void;
  close(): void;
}

/** The part of a backend that can record steps. */
interface Recorder {
  /** Runs `step` once and records it; returns undefined and does nothing if the engine cannot record. */
  record?(step: () => void): Recording | undefined;
}

/**
 * A step that runs many times and both reads and writes everything that changes on the device. An engine that can record replays
 * it as a single command from its second run on. Call `close` at the end.
 */
export class Replayed {
  private recording?: Recording;
  private first = true;

  constructor(private readonly step: () => void) {}

  run(): void {
    if (this.recording) {
      this.recording.replay();
      return;
    }
    if (this.first) this.recording = (tf.backend() as Recorder).record?.(this.step);
    this.first = false;
    if (!this.recording) this.step();
  }

  close(): void {
    this.recording?.close();
    this.recording = undefined;
  }
}
