import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import { action, examples, type GlobalOptions, type Invocation, wholeNumber } from '../base/command.js';

const SCRIPT = fileURLToPath(new URL('../../../bin/alitok.js', import.meta.url));

/** Commands whose work several processes can share. */
const SHARED = ['train-tokenizer', 'train-ar', 'train-features', 'tokenize', 'sample', 'eval', 'stats'];

interface Options {
  processes: number;
  maxRestarts: number;
}

/** The options of every command, as words again. */
function globalWords(options: GlobalOptions): string[] {
  const { engine, threads, device, precision, logLevel, tf32, deterministic, quiet, verbose } = options;
  const values = { engine, threads, device, precision, 'log-level': logLevel };
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  const flags = Object.entries({ tf32, deterministic, quiet, verbose }).filter(([, set]) => set);
  return [
    ...given.flatMap(([name, value]) => [`--${name}`, String(value)]),
    ...flags.map(([name]) => `--${name}`),
  ];
}

/** A parser of a command's own options alone, which acts on nothing. */
function optionsOf(command: Command): Command {
  const parser = new Command().exitOverride();
  for (const option of command.options) parser.addOption(option);
  return parser;
}

/** The command that words name after options of every command, if it is one. */
function commandOf(program: Command, words: readonly string[]): Command | undefined {
  const [name] = optionsOf(program).parseOptions([...words]).operands;
  return program.commands.find((command) => command.name() === name);
}

/** The same command, going on from where it came: training is told to, sampling and tokenizing do so by themselves. */
function goingOn(command: Command, words: readonly string[]): string[] {
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
      `launch ${command?.name() ?? words[0]}: only ${SHARED.join(', ')} can be shared by several processes; write one of them after --`,
    );
  const { launch } = await import('../base/launch.js');
  process.exitCode = await launch(
    SCRIPT,
    {
      args: [...globalWords(options), ...words],
      goingOn: [...globalWords(options), ...goingOn(command, words)],
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
    .description('run a command in several processes of this machine, which share its work')
    .argument('<command...>', 'the command and its options, after --')
    .option('-p, --processes <n>', 'how many (default: one for each processor)', wholeNumber(1))
    .option(
      '--max-restarts <n>',
      'how often all are started again, from the newest checkpoint, if one fails',
      wholeNumber(0),
      0,
    )
    .addHelpText(
      'after',
      examples([
        [
          'alitok launch -p 8 -- train-ar -c configs/alitok_b.yaml -t imagenet.safetensors -r runs/b',
          'on all GPUs of a machine',
        ],
        ['alitok launch -p 2 -- sample -g runs/ar --tokenizer runs/tokenizer -o samples', 'twice as fast'],
      ]),
    )
    .action(
      action((invocation: Invocation<Options>) => {
        invocation.options.processes ??= availableParallelism();
        return run(invocation, program);
      }),
    );
}
