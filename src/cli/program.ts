import { Command } from 'commander';
import type { EngineChoice } from '../engine/index.js';
import { DEBUG_SCOPES } from '../job/reporter.js';
import { formatTable } from '../text.js';
import { packageVersion } from '../versions.js';
import type { LogLevel } from './base/log.js';
import { choice, debugOption, examples, wholeNumber } from './base/options.js';
import * as bench from './commands/bench.js';
import * as completion from './commands/completion.js';
import * as convert from './commands/convert.js';
import * as curves from './commands/curves.js';
import * as doctor from './commands/doctor.js';
import * as evaluate from './commands/eval.js';
import * as inspect from './commands/inspect.js';
import * as launch from './commands/launch.js';
import * as quickstart from './commands/quickstart.js';
import * as reconstruct from './commands/reconstruct.js';
import * as report from './commands/report.js';
import * as sample from './commands/sample.js';
import * as stats from './commands/stats.js';
import * as tokenize from './commands/tokenize.js';
import * as trainAr from './commands/train-ar.js';
import * as trainFeatures from './commands/train-features.js';
import * as trainTokenizer from './commands/train-tokenizer.js';

/** Declares one command. Its file is src/cli/commands/NAME.ts and imports what is heavy inside the action only. */
export type Register = (program: Command) => void;

/** All commands, in the order of the pipeline: the order of the help. */
const COMMANDS: readonly Register[] = [
  quickstart,
  trainTokenizer,
  reconstruct,
  tokenize,
  trainAr,
  sample,
  trainFeatures,
  stats,
  evaluate,
  launch,
  report,
  curves,
  inspect,
  convert,
  bench,
  doctor,
  completion,
].map((command) => command.register);

// As records, so that the compiler finds a missing one; their modules take too long to import for the help.
const ENGINES: Record<EngineChoice, true> = {
  auto: true,
  libtorch: true,
  tensorflow: true,
  wasm: true,
  cpu: true,
};
const LOG_LEVELS: Record<LogLevel, true> = {
  debug: true,
  info: true,
  warn: true,
  error: true,
  silent: true,
};

const indented = (lines: readonly string[]) => lines.map((line) => `  ${line}`).join('\n');

/** The command line as a commander program; it throws CommanderError instead of ending the process. */
export function createProgram(commands: readonly Register[] = COMMANDS): Command {
  const program = new Command('alitok')
    .description('Train, sample and evaluate aligned image tokenizers and autoregressive generators.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .addOption(
      choice(
        '--engine <name>',
        'compute engine; auto: the first of libtorch, tensorflow and wasm that can run',
        Object.keys(ENGINES),
        'auto',
      ),
    )
    .option('--threads <n>', 'processor threads to use (default: all)', wholeNumber(1))
    .option(
      '--device <name>',
      'libtorch, tensorflow: cpu, cuda or cuda:N (default: cuda if there is a CUDA device)',
    )
    .addOption(
      choice('--precision <type>', 'libtorch only: precision of layers', ['float32', 'bf16'], 'float32'),
    )
    .option('--tf32', 'CUDA only: allow TF32 in float32 matrix products')
    .option('--deterministic', 'CUDA only: use deterministic algorithms, which give the same bits each time')
    .addOption(
      choice('--log-level <level>', 'least severe log lines to print', Object.keys(LOG_LEVELS), 'info'),
    )
    .option('-q, --quiet', 'print warnings and errors only, no progress bars')
    .option('-v, --verbose', 'print the stack trace of an error, and the log messages of TensorFlow')
    .addOption(debugOption())
    .option('--profile', 'write a CPU profile of the command (*.cpuprofile) to the current folder')
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('(add --help for options and examples)')
    .exitOverride()
    .addHelpText(
      'after',
      () => `\nScopes of --debug:\n${indented(formatTable(Object.entries(DEBUG_SCOPES)))}`,
    )
    .addHelpText(
      'after',
      examples([
        ['alitok quickstart', 'see the whole pipeline work, in a few minutes'],
        ['alitok train-tokenizer --help', 'options and examples of one command'],
      ]),
    );
  for (const register of commands) register(program);
  return program;
}
