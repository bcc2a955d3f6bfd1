/** Names out of damaged or hostile files come into messages: what would break or flood the line is left out. */
const UNPRINTABLE = /\s*[\p{Cc}\p{Zl}\p{Zp}]+\s*/gu;
const MAX_LENGTH = 2000;

/** Enclose the name of an option in a message, and its value, until it is known who reads the message. */
const [OPEN, VALUE, CLOSE] = ['\uE000', '\uE001', '\uE002'];
const OPTION = new RegExp(`${OPEN}([^${VALUE}]*)${VALUE}([^${CLOSE}]*)${CLOSE}`, 'g');

/**
 * Names an option in a message, by its name in the library. A program reads `maxPixels` or `engine: 'wasm'`, a user of the
 * command line `--max-pixels` or `--engine wasm`.
 */
export function option(name: string, value: string | number = ''): string {
  return `${OPEN}${name}${VALUE}${value}${CLOSE}`;
}

/** A message with options as the library has them. */
export function forLibrary(text: string): string {
  return text.replace(OPTION, (_, name, value) => {
    if (value === '') return name;
    return `${name}: ${/^\d+$/.test(value) ? value : `'${value}'`}`;
  });
}

/** A message with options as they are written on the command line. */
export function forCommandLine(text: string): string {
  return text.replace(OPTION, (_, name: string, value) => {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    return value === '' ? flag : `${flag} ${value}`;
  });
}

/** What to do where memory lacks, on the host or on a device. */
export const LESS_MEMORY = `lower the batch size (batch_size, ${option('batchSize')}), raise accumulation, or train with checkpoint_activations`;

/**
 * The errors a user can cause or repair. Each carries one line that names the file, key or shape and the
 * remedy; the command line prints that line and exits with the error's code. Anything else is a defect.
 */
export class AlitokError extends Error {
  /** Process exit code of the command that ends with this error. */
  readonly exitCode: number = 1;

  /** The message with its options still marked: for a message that goes on where this one ends. */
  readonly text: string;

  constructor(text: string, options?: ErrorOptions) {
    const printable = text.slice(0, MAX_LENGTH).replace(UNPRINTABLE, ' ');
    super(forLibrary(printable), options);
    this.text = printable;
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
