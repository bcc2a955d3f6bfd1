import { inspect } from 'node:util';
import { CommanderError } from 'commander';
import { AlitokError, EngineError, forCommandLine, Interrupted, LESS_MEMORY } from '../../errors.js';

const USAGE_CODE = 2;
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** EX_SOFTWARE of sysexits.h: a defect of the program. */
const UNEXPECTED_CODE = 70;

/** How JavaScript says that there is no room for an array. */
const NO_ROOM = /allocation failed|Invalid (typed )?array( buffer)? length/i;

/** What a failure shows on standard error, and the exit code it ends with. */
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

/** The one way out after a failure: shows it, lets the streams drain, ends the process. */
export function exit(error: unknown, verbose: boolean): void {
  const { text, code } = describeFailure(error, verbose);
  process.stdout.write('', () => process.stderr.write(text, () => process.exit(code)));
}

/** Ends quietly when the reader of the output goes away (`alitok … | head`). */
export function exitOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? 0 : UNEXPECTED_CODE);
    });
}

/**
 * Does work whose signal is aborted by the first Ctrl-C or SIGTERM, so that it can save and end with Interrupted; a second
 * one ends the process at once. Signals are seen only when the work lets the event loop turn. Before and after it they do
 * what they do in any program.
 * @throws Interrupted where the work did not end by itself after the first
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
    if (controller.signal.aborted) throw new Interrupted('stopped; what was under way is done');
    return result;
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}
