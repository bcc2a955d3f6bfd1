import { availableParallelism } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Config } from '../../config/schema.js';
import type { Group } from '../../engine/distributed/group.js';
import { placeFromEnvironment } from '../../engine/distributed/place.js';
import type { EngineChoice } from '../../engine/index.js';
import type { WeightKind } from '../../engine/ops/index.js';
import { ConfigError } from '../../errors.js';
import type { Job } from '../../job/job.js';
import type { Resume } from '../../run/record.js';
import { interruptible } from './exit.js';
import type { Log, LogLevel } from './log.js';

/** Options that every command has. */
export interface GlobalOptions {
  engine: EngineChoice;
  threads?: number;
  device?: string;
  precision?: 'float32' | 'bf16';
  tf32?: boolean;
  deterministic?: boolean;
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

/** The processes that this one shares the command's work with, once `openJob` has met them. */
let group: Group | undefined;

/**
 * Turns an action into what commander calls: opens the log before it, closes bars and files after it, and tells other
 * processes that share the work how it ended.
 */
export function action<Options>(run: (invocation: Invocation<Options>) => Promise<void>) {
  return async (...given: unknown[]): Promise<void> => {
    const command = given.at(-1) as Command;
    const options = command.optsWithGlobals<Options & GlobalOptions>();
    const { openLog } = await import('./log.js');
    const place = placeFromEnvironment();
    // Of several processes the first one speaks; the others tell of what goes wrong.
    const log = openLog({ level: options.logLevel, quiet: options.quiet || (place?.rank ?? 0) > 0 });
    try {
      await run({ options, args: command.processedArgs, log });
      await group?.leave();
    } catch (error) {
      await group?.fail(error);
      throw error;
    } finally {
      log.close();
    }
  };
}

/** A word of a command line as a shell reads it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A fair share of the processors, where other processes of the group run on the same machine. */
function sharedThreads(localSize = 1): number {
  return Math.max(1, Math.floor(availableParallelism() / localSize));
}

/** Ends this process when the `alitok launch` that started it is gone. */
function endWithLauncher(): void {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel?.unref();
}

/**
 * Starts the engine that the options name, and makes what work needs. With `shared`, the work can be divided among
 * processes, which then meet here; other work is refused where there are several.
 * @throws EngineError where the engine cannot run
 * @throws ConfigError, ProcessError where the environment names several processes and they cannot work together
 */
export async function openJob(
  { options, log }: Invocation<object>,
  { shared = false }: { shared?: boolean } = {},
): Promise<Job> {
  const { openEngine } = await import('../../engine/index.js');
  const place = placeFromEnvironment();
  if (place && !shared)
    throw new ConfigError(
      `this command runs in one process, but the environment names ${place.size}; start it without \`alitok launch\` and the like`,
    );
  const threads = options.threads ?? (place && sharedThreads(place.localSize));
  const warn = (message: string) => log.warn(message);
  const engine = await openEngine(options.engine, { ...options, threads, localRank: place?.localRank, warn });
  log.logger.debug({ engine }, 'engine started');
  if (place) {
    endWithLauncher();
    const { ProcessGroup } = await import('../../engine/distributed/process-group.js');
    group = await ProcessGroup.join(place);
    log.logger.info(`rank ${place.rank} of ${place.size} processes`);
  }
  return {
    engine,
    group,
    command: ['alitok', ...process.argv.slice(2)].map(quote).join(' '),
    reporter: log,
    interruptible: (work) =>
      interruptible(work, () => log.warn('stopping; once more stops at once, without saving')),
    logTo: log.toFile,
  };
}

/** Gives a command `--config FILE` and trailing `key.sub=value` overrides; `readConfig` reads them. */
export function withConfig(command: Command): Command {
  return configOption(command.argument('[overrides...]', 'config values, such as generator.layers=12'));
}

/** Gives a command `--config FILE`. */
export function configOption(command: Command): Command {
  return command.option('-c, --config <file>', 'YAML file of the experiment (default: the published values)');
}

/** Options of a command made by `withResume`. */
export interface ResumeFlags {
  resume?: Resume;
  allowChanges?: boolean;
}

/** Gives a `withConfig` command `--resume [auto]` and `--allow-changes`; `readResume` reads them. */
export function withResume(command: Command): Command {
  return command
    .option('--resume [auto]', 'go on from the newest checkpoint; auto: begin if there is no run yet')
    .option('--allow-changes', 'resume with other values or data than the run was begun with, too')
    .hook('preAction', (_, given) => {
      // What follows --resume may be the first of the overrides.
      const { resume } = given.opts<{ resume?: string | true }>();
      if (typeof resume !== 'string' || resume === 'auto') return;
      (given.processedArgs.at(-1) as string[]).push(resume);
      given.setOptionValue('resume', true);
    });
}

/** How a `withResume` command is to take the run in its folder. */
export function readResume({ resume = false, allowChanges = false }: ResumeFlags) {
  return { resume, allowChanges };
}

/** The experiment that a `withConfig` command was started with. @throws ConfigError */
export async function readConfig({ options, args }: Invocation<ConfigOptions>): Promise<Config> {
  const { loadConfig } = await import('../../config/load.js');
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

/** What commands that read images take; see `maxPixelsOption` and `emptyClassesOption`. */
export interface ImageFlags {
  maxPixels?: number;
  allowEmptyClasses?: boolean;
}

/** How large a single image may be. */
export function maxPixelsOption(): Option {
  return new Option(
    '--max-pixels <n>',
    'pixels an image may have; a larger one counts as unreadable (default: 268 million)',
  ).argParser(wholeNumber(1));
}

/** Whether a class may be without images. */
export function emptyClassesOption(): Option {
  return new Option(
    '--allow-empty-classes',
    'take class folders without an image too; each keeps its class number',
  );
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
