import { exit, exitOnClosedPipe } from './base/exit.js';
import { completeDebug } from './base/options.js';
import { createProgram } from './program.js';

/** Runs one command line; `argv` is that of the process, with the paths of Node.js and the program. */
export async function main(argv: readonly string[]): Promise<void> {
  const program = createProgram();
  const fail = (error: unknown) => exit(error, program.opts().verbose === true);
  exitOnClosedPipe();
  process.on('uncaughtException', fail);
  try {
    const names = program.commands.map((command) => command.name());
    await program.parseAsync(completeDebug(argv, names));
  } catch (error) {
    fail(error);
  }
}
