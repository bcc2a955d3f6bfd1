import * as tf from '@tensorflow/tfjs';

/** A step that a device has recorded. */
export interface Recording {
  /** Queues the step's work once more, without the host going through it. */
  replay(): void;
  close(): void;
}

/** What an engine says of itself that can record. */
interface Recorder {
  /** Does `step` once, and records it for the next times; undefined, and nothing done, where the engine does not record. */
  record?(step: () => void): Recording | undefined;
}

/**
 * A step that is done again and again, and each time takes all that changes from the device and leaves it there. An engine that
 * can record does it from its second time on as one command. To be closed in the end.
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
