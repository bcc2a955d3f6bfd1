import { Command } from 'commander';
import type { EngineChoice } from '../engine/index.js';
import { packageVersion } from '../versions.js';
import { choice, examples, wholeNumber } from './base/command.js';
import type { LogLevel } from './base/log.js';
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

// As records, the compiler sees to it that none is missing; their modules are too heavy to import for the help.
const ENGINES: Record<EngineChoice, true> = {
  auto: true,
  libtorch: true,
  tensorflow: true,
  wasm: true,
  cpu: true,
};
const LOG_LEVELS: Record<LogLevel, true> = {
  trace: true,
  debug: true,
  info: true,
  warn: true,
  error: true,
  silent: true,
};

/** The command line as a commander program; it throws CommanderError in place of ending the process. */
export function createProgram(commands: readonly Register[] = COMMANDS): Command {
  const program = new Command('alitok')
    .description('Train, sample and evaluate aligned image tokenizers and autoregressive generators.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .addOption(
      choice(
        '--engine <name>',
        'what computes: auto takes the fastest installed',
        Object.keys(ENGINES),
        'auto',
      ),
    )
    .option('--threads <n>', 'processors to use (default: all)', wholeNumber(1))
    .option('--device <name>', 'cpu, cuda or cuda:N, for libtorch (default: cuda where there is any)')
    .addOption(
      choice('--precision <type>', 'what layers multiply, for libtorch', ['float32', 'bf16'], 'float32'),
    )
    .option('--tf32', 'let CUDA multiply float32 numbers with a shorter mantissa')
    .option('--deterministic', 'let CUDA use only algorithms that give the same bits each time')
    .addOption(choice('--log-level <level>', 'least level of log lines', Object.keys(LOG_LEVELS), 'info'))
    .option('-q, --quiet', 'no progress bars, only warnings and errors')
    .option('-v, --verbose', 'show stack traces of errors')
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('(add --help for options and examples)')
    .exitOverride()
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
