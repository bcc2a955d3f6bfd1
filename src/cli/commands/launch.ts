import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import { action, examples, type GlobalOptions, type Invocation, wholeNumber } from '../command.js';

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

async function run({ options, args }: Invocation<Options>, commands: readonly string[]): Promise<void> {
  const { processes, maxRestarts } = options;
  const words = args[0] as string[];
  const name = words.find((word) => commands.includes(word));
  if (!name || !SHARED.includes(name))
    throw new ConfigError(
      `launch ${name ?? words[0]}: only ${SHARED.join(', ')} can be shared by several processes; write one of them after --`,
    );
  const { launch } = await import('../launch.js');
  process.exitCode = await launch(
    SCRIPT,
    [...globalWords(options), ...words],
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
        const commands = program.commands.map((command) => command.name());
        return run(invocation, commands);
      }),
    );
}
