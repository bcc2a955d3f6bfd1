import { AlitokError } from '../errors.js';

/** Numbers and short texts shown beside a progress bar, such as the loss. */
export type Fields = Record<string, number | string>;

/** One piece of long work as the user sees it. */
export interface Progress {
  /** `done` of the total are done; `fields` replace those shown before. */
  update(done: number, fields?: Fields): void;
  /** Must be called at the end of the work, however it ends. */
  stop(): void;
}

/** What is counted: `total` of `unit` (`'steps'`, `'images'`), of which `start` were done by an earlier run. */
export interface ProgressOptions {
  label: string;
  total: number;
  unit: string;
  start?: number;
}

/** How loops tell the user what goes on, without knowing whether there is a terminal. */
export interface Reporter {
  /** Opened while another progress is open, it is shown in that one's place until it stops. */
  progress(options: ProgressOptions): Progress;
  info(message: string): void;
  warn(message: string): void;
}

/** Images with a side shorter than the size they are wanted in. */
interface SmallImages {
  root: string;
  count: number;
  imageSize: number;
  example: string;
}

/** Tells of what a loader does with single images: passes over a file that cannot be read, enlarges small ones. */
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
