import { exit, exitOnClosedPipe } from './base/exit.js';
import { createProgram } from './program.js';

/** Runs one command line; `argv` as Node gives it, the program's path included. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = createProgram();
  const fail = (error: unknown) => exit(error, program.opts().verbose === true);
  exitOnClosedPipe();
  process.on('uncaughtException', fail);
  try {
    await program.parseAsync(argv);
  } catch (error) {
    fail(error);
  }
}
