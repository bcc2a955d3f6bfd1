/** Names out of damaged or hostile files come into messages: what would break or flood the line is left out. */
const UNPRINTABLE = /\s*[\p{Cc}\p{Zl}\p{Zp}]+\s*/gu;
const MAX_LENGTH = 2000;

/** What to do where memory lacks, on the host or on a device. */
export const LESS_MEMORY =
  'lower the batch size (batch_size, --batch), raise accumulation, or train with checkpoint_activations';

/**
 * The errors a user can cause or repair. Each carries one line that names the file, key or shape and the
 * remedy; the command line prints that line and exits with the error's code. Anything else is a defect.
 */
export class AlitokError extends Error {
  /** Process exit code of the command that ends with this error. */
  readonly exitCode: number = 1;

  constructor(message: string, options?: ErrorOptions) {
    super(message.slice(0, MAX_LENGTH).replace(UNPRINTABLE, ' '), options);
    this.name = new.target.name;
  }
}

/** A config file, an override or a command-line option is wrong. */
export class ConfigError extends AlitokError {
  override readonly exitCode = 2;
}

/** Images, image lists or token caches are missing, unreadable or do not fit. */
export class DataError extends AlitokError {
  override readonly exitCode = 3;
}

/** A checkpoint or weights file is missing, damaged or of another shape. */
export class CheckpointError extends AlitokError {
  override readonly exitCode = 4;
}

/** An engine or device is not available, or failed. */
export class EngineError extends AlitokError {
  override readonly exitCode = 5;
}

/** A file or folder cannot be written: permission, disk full, already in use. */
export class OutputError extends AlitokError {
  override readonly exitCode = 6;
}

/** Training cannot go on: it has diverged. */
export class TrainingError extends AlitokError {
  override readonly exitCode = 7;
}

/** Another of the processes that work together is gone, or does not come. */
export class ProcessError extends AlitokError {
  override readonly exitCode = 8;
}

/** Stopped by Ctrl-C or SIGTERM after saving. */
export class Interrupted extends AlitokError {
  override readonly exitCode = 130;
}
