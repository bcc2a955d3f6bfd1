import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Config } from '../config/schema.js';
import type { EngineChoice } from '../engine/index.js';
import type { WeightKind } from '../engine/ops/index.js';
import type { Job } from '../job/job.js';
import { interruption } from './exit.js';
import type { Log, LogLevel } from './log.js';

/** Options that every command has. */
export interface GlobalOptions {
  engine: EngineChoice;
  threads?: number;
  device?: string;
  precision?: 'float32' | 'bf16';
  tf32?: boolean;
  logLevel: LogLevel;
  quiet?: boolean;
  verbose?: boolean;
}

/** Options of a command made by `withConfig`. */
export interface ConfigOptions {
  config?: string;
}

/** What a command's action gets. */
export interface Invocation<Options> {
  options: Options & GlobalOptions;
  /** The positional arguments; a variadic one is an array. */
  args: unknown[];
  log: Log;
}

/** Turns an action into what commander calls: opens the log before it, closes bars and files after it. */
export function action<Options>(run: (invocation: Invocation<Options>) => Promise<void>) {
  return async (...given: unknown[]): Promise<void> => {
    const command = given.at(-1) as Command;
    const options = command.optsWithGlobals<Options & GlobalOptions>();
    const { openLog } = await import('./log.js');
    const log = openLog({ level: options.logLevel, quiet: options.quiet });
    try {
      await run({ options, args: command.processedArgs, log });
    } finally {
      log.close();
    }
  };
}

/** A word of a command line as a shell reads it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Starts the engine that the options name, and makes what work needs. @throws EngineError where it cannot run */
export async function openJob({ options, log }: Invocation<object>): Promise<Job> {
  const { openEngine } = await import('../engine/index.js');
  const engine = await openEngine(options.engine, options);
  log.logger.debug({ engine }, 'engine started');
  let signal: AbortSignal | undefined;
  return {
    engine,
    command: ['alitok', ...process.argv.slice(2)].map(quote).join(' '),
    reporter: log,
    // Taking it replaces Node's way to stop: work that never looks at it still ends at once on Ctrl-C.
    get signal() {
      signal ??= interruption(() => log.warn('stopping; once more stops at once, without saving'));
      return signal;
    },
    logTo: log.toFile,
  };
}

/** Gives a command `--config FILE` and trailing `key.sub=value` overrides; `readConfig` reads them. */
export function withConfig(command: Command): Command {
  return command
    .argument('[overrides...]', 'config values, such as generator.layers=12')
    .option('-c, --config <file>', 'YAML file of the experiment (default: the published values)');
}

/** The experiment that a `withConfig` command was started with. @throws ConfigError */
export async function readConfig({ options, args }: Invocation<ConfigOptions>): Promise<Config> {
  const { loadConfig } = await import('../config/load.js');
  return loadConfig(options.config, args.at(-1) as string[]);
}

/** Help text with example command lines: `[['alitok eval …', 'what it does'], …]`. */
export function examples(lines: readonly (readonly [command: string, purpose: string])[]): string {
  return `\nExamples:\n${lines.map(([command, purpose]) => `  # ${purpose}\n  $ ${command}\n`).join('')}`;
}

/** Parses an option that is a whole number of at least `minimum`. */
export function wholeNumber(minimum: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum)
      throw new InvalidArgumentError(`It must be a whole number of at least ${minimum}.`);
    return value;
  };
}

/** An option with a fixed set of values. */
export function choice(
  flags: string,
  description: string,
  values: readonly string[],
  standard: string,
): Option {
  return new Option(flags, description).choices([...values]).default(standard);
}

/** Whether to say what a training run would take, in place of running it. */
export function dryRunOption(): Option {
  return new Option('--dry-run', 'train nothing, but say what it takes: sizes, memory, time, disk');
}

/** What to keep a generator's weights in while it samples. */
export function weightsOption(): Option {
  const kinds: WeightKind[] = ['float32', 'bf16', 'int8'];
  return choice(
    '--weights <kind>',
    'sample with weights in fewer bits, sooner and a little less exact',
    kinds,
    'float32',
  );
}
