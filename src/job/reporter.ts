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

/** Tells of an image file that cannot be read, which a loader then passes over. */
export function warnOfSkipped(reporter: Reporter): (path: string, error: Error) => void {
  return (path, error) => reporter.warn(`skipped ${path}: ${error.message}`);
}
