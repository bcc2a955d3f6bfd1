import * as tf from '@tensorflow/tfjs';

/** A step that a device has recorded. */
export interface Recording {
  /** Queues the step's work once more, without the host going through it. */
  replay(): void;
  close(): void;
}

/** What an engine says of itself that can record. */
interface Recorder {
  /** Records what `step` asks of the device, without doing it; undefined where that cannot be. */
  record?(step: () => void): Recording | undefined;
}

/**
 * A step that is done again and again, and each time takes all that changes from the device and leaves it there. An engine that
 * can record runs it from its second time on as one command. To be closed in the end.
 */
export class Replayed {
  private times = 0;
  private recording?: Recording;

  constructor(private readonly step: () => void) {}

  run(): void {
    // The first time prepares what stays, such as weights in another precision; what is recorded must not.
    if (this.times === 1) this.recording = (tf.backend() as Recorder).record?.(this.step);
    this.times += 1;
    if (this.recording) this.recording.replay();
    else this.step();
  }

  close(): void {
    this.recording?.close();
    this.recording = undefined;
  }
}
