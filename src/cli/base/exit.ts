import { inspect } from 'node:util';
import { CommanderError } from 'commander';
import { AlitokError, EngineError, forCommandLine, Interrupted, LESS_MEMORY } from '../../errors.js';

const USAGE_CODE = 2;
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** EX_SOFTWARE of sysexits.h: a defect of the program. */
const UNEXPECTED_CODE = 70;

/** JavaScript's messages when an array does not fit into memory. */
const NO_ROOM = /allocation failed|Invalid (typed )?array( buffer)? length/i;

/** The text of a failure on standard error, and its exit code. */
export function describeFailure(error: unknown, verbose: boolean): { text: string; code: number } {
  if (error instanceof CommanderError) return { text: '', code: error.exitCode === 0 ? 0 : USAGE_CODE };
  const details = verbose ? `${inspect(error)}\n` : '';
  const message = error instanceof Error ? error.message : String(error);
  const shown = error instanceof AlitokError ? forCommandLine(error.text) : message;
  const line = shown.trim().replace(/\s*\n\s*/g, ' ');
  if (error instanceof Interrupted) return { text: `${line}\n${details}`, code: error.exitCode };
  if (error instanceof AlitokError) return { text: `error: ${line}\n${details}`, code: error.exitCode };
  if (error instanceof RangeError && NO_ROOM.test(line)) {
    const text = `error: not enough memory for an array of numbers (${line}); ${forCommandLine(LESS_MEMORY)}\n${details}`;
    return { text, code: new EngineError('').exitCode };
  }
  const hint = verbose ? details : 'run again with --verbose to see where\n';
  return { text: `error: unexpected: ${line}\n${hint}`, code: UNEXPECTED_CODE };
}

/** Ends the process after a failure: prints it, and waits until the streams are written. */
export function exit(error: unknown, verbose: boolean): void {
  const { text, code } = describeFailure(error, verbose);
  process.stdout.write('', () => process.stderr.write(text, () => process.exit(code)));
}

/** Ends quietly when the reader of the output closes the pipe (`alitok … | head`). */
export function exitOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? 0 : UNEXPECTED_CODE);
    });
}

/**
 * Runs work with an AbortSignal that the first Ctrl-C or SIGTERM aborts, so that the work can save and end with Interrupted;
 * a second one ends the process at once. Signals are handled only when the work yields to the event loop. Before and after
 * the work they end the process as usual.
 * @throws Interrupted if the work finished in spite of the signal
 */
export async function interruptible<T>(
  work: (signal: AbortSignal) => Promise<T>,
  onFirst: () => void,
): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(new Interrupted('').exitCode);
    controller.abort();
    onFirst();
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    const result = await work(controller.signal);
    if (controller.signal.aborted) throw new Interrupted('stopped after the work in progress was finished');
    return result;
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}
