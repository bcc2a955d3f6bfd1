import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import { action, type GlobalOptions, type Invocation } from '../base/command.js';
import { examples, wholeNumber } from '../base/options.js';

const SCRIPT = fileURLToPath(new URL('../../../bin/alitok.js', import.meta.url));

/** Commands whose work several processes can share. */
const SHARED = ['train-tokenizer', 'train-ar', 'train-features', 'tokenize', 'sample', 'eval', 'stats'];

interface Options {
  processes: number;
  maxRestarts: number;
}

/** The global options as words of a command line again. */
function globalWords(options: GlobalOptions): string[] {
  const { engine, threads, device, precision, logLevel, tf32, deterministic, quiet, verbose, profile } =
    options;
  const values = { engine, threads, device, precision, 'log-level': logLevel };
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  const flags = Object.entries({ tf32, deterministic, quiet, verbose, profile }).filter(([, set]) => set);
  return [
    ...given.flatMap(([name, value]) => [`--${name}`, String(value)]),
    ...flags.map(([name]) => `--${name}`),
    ...(options.debug ? [`--debug=${options.debug === true ? 'all' : options.debug.join(',')}`] : []),
  ];
}

/** A parser of a command's own options, without its action. */
function optionsOf(command: Command): Command {
  const parser = new Command().exitOverride();
  for (const option of command.options) parser.addOption(option);
  return parser;
}

/** The command that words name after global options, if there is one. */
function commandOf(program: Command, words: readonly string[]): Command | undefined {
  const [name] = optionsOf(program).parseOptions([...words]).operands;
  return program.commands.find((command) => command.name() === name);
}

/** The same command, continuing its work: training needs `--resume`, sampling and tokenizing continue by themselves. */
function resumed(command: Command, words: readonly string[]): string[] {
  const parser = optionsOf(command);
  if (!command.options.some(({ long }) => long === '--resume')) return [...words];
  parser.parseOptions(words.slice(words.indexOf(command.name()) + 1));
  return parser.getOptionValue('resume') === undefined ? [...words, '--resume', 'auto'] : [...words];
}

async function run({ options, args }: Invocation<Options>, program: Command): Promise<void> {
  const { processes, maxRestarts } = options;
  const words = args[0] as string[];
  const command = commandOf(program, words);
  if (!command || !SHARED.includes(command.name()))
    throw new ConfigError(
      `launch ${command?.name() ?? words[0]}: only ${SHARED.join(', ')} can be divided among several processes; write one of them after --`,
    );
  const { launch } = await import('../base/launch.js');
  process.exitCode = await launch(
    SCRIPT,
    {
      args: [...globalWords(options), ...words],
      resumed: [...globalWords(options), ...resumed(command, words)],
    },
    { processes, maxRestarts },
    {
      out: (text) => process.stdout.write(text),
      line: (rank, text) =>
        process.stderr.write(`[${rank === undefined ? 'launch' : `rank ${rank}`}] ${text}\n`),
    },
  );
}

export function register(program: Command): void {
  program
    .command('launch')
    .description('run a command in several processes on this machine, which divide its work')
    .argument('<command...>', 'the command and its options, after --')
    .option('-p, --processes <n>', 'number of processes (default: one for each processor)', wholeNumber(1))
    .option(
      '--max-restarts <n>',
      'how often to restart all processes, from the newest checkpoint, if one fails',
      wholeNumber(0),
      0,
    )
    .addHelpText(
      'after',
      examples([
        [
          'alitok launch -p 8 -- train-ar -c configs/alitok_b.yaml --tokens imagenet.safetensors -r runs/b',
          'on all GPUs of a machine',
        ],
        ['alitok launch -p 2 -- sample -g runs/ar -t runs/tokenizer -o samples', 'sample in two processes'],
      ]),
    )
    .action(
      action(
        (invocation: Invocation<Options>) => {
          invocation.options.processes ??= availableParallelism();
          return run(invocation, program);
        },
        { profiled: false },
      ),
    );
}
