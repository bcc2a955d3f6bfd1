import { AlitokError } from '../errors.js';

/** Numbers and short texts shown beside a progress bar, such as the loss. */
export type Fields = Record<string, number | string>;

/** A progress bar. */
export interface Progress {
  /** Shows `done` of the total; `fields` replace those shown before. */
  update(done: number, fields?: Fields): void;
  /** Closes the bar. Must be called however the work ends. */
  stop(): void;
}

/** What a progress bar counts: `total` of `unit` (`'steps'`, `'images'`), of which an earlier run did `start`. */
export interface ProgressOptions {
  label: string;
  total: number;
  unit: string;
  start?: number;
}

/** What debug messages are about, each scope with what it shows. */
export const DEBUG_SCOPES = {
  config: 'each value that a config file or an override sets, and where',
  data: 'how long listing the images took, and how long steps wait for data',
  engine: 'which engine, device and precision were chosen, and why others were not',
  memory: 'memory of the process, its tensors and the device, at each line of the metrics log',
  processes: 'how the processes of a group found each other',
  run: 'what is read from and written to a run folder, and how long it takes',
} as const;
export type DebugScope = keyof typeof DEBUG_SCOPES;

/** How long tasks report to the user, with or without a terminal. */
export interface Reporter {
  /** Opens a progress bar. It is shown instead of one that is already open, until it stops. */
  progress(options: ProgressOptions): Progress;
  info(message: string): void;
  warn(message: string): void;
  /**
   * Reports a detail that helps to find a problem; absent where nobody asked for any. A message that takes work to make
   * is given as a function, which is called only if the scope was asked for.
   */
  debug?(scope: DebugScope, message: string | (() => string)): void;
}

/** Images with a side shorter than the requested size. */
interface SmallImages {
  root: string;
  count: number;
  imageSize: number;
  example: string;
}

/** Callbacks for a loader that warn of images which are skipped because they cannot be read, or enlarged. */
export function imageWarnings(reporter: Reporter) {
  return {
    onUnreadable(path: string, error: Error) {
      const message = error instanceof AlitokError ? error.text : error.message;
      reporter.warn(`skipped ${message.includes(path) ? 'an image' : path}: ${message}`);
    },
    onSmall({ root, count, imageSize, example }: SmallImages) {
      const [are, were] = count === 1 ? ['image is', 'was'] : ['images are', 'were'];
      reporter.warn(
        `${root}: ${count.toLocaleString('en-US')} ${are} smaller than ${imageSize} × ${imageSize} pixels and ${were} enlarged (${example}${count > 1 ? ', …' : ''}); leave ${count === 1 ? 'it' : 'them'} out, or lower the size, for sharp results`,
      );
    },
  };
}
