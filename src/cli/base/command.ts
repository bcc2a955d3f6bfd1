import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import type { Defaults, ResolvedConfig } from '../../config/load.js';
import type { Config } from '../../config/schema.js';
import type { Group } from '../../engine/distributed/group.js';
import { placeFromEnvironment } from '../../engine/distributed/place.js';
import type { EngineChoice, EngineOptions } from '../../engine/index.js';
import { ConfigError } from '../../errors.js';
import type { Job } from '../../job/job.js';
import type { DebugScope } from '../../job/reporter.js';
import type { Resume } from '../../run/record.js';
import { interruptible } from './exit.js';
import type { Log, LogLevel } from './log.js';
import { SCOPES } from './options.js';
import type { Recording } from './profile.js';

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
  /** `true` where no scopes were named. */
  debug?: DebugScope[] | true;
  profile?: boolean;
}

/** Options of a command made by `withConfig`. */
export interface ConfigOptions {
  config?: string;
}

/** The argument of a command's action. */
export interface Invocation<Options> {
  options: Options & GlobalOptions;
  /** The positional arguments; a variadic one is an array. */
  args: unknown[];
  log: Log;
}

/** The processes that this one shares the command's work with, once `openJob` has joined them. */
let group: Group | undefined;

/** `eval-generation`: a command's name with those it is below, without the program. */
function nameOf(command: Command): string {
  const names: string[] = [];
  for (let one = command; one.parent; one = one.parent) names.unshift(one.name());
  return names.join('-');
}

/**
 * Turns an action into what commander calls. Opens the log before it; closes bars and files after it, writes the profile
 * that `--profile` asks for, and tells the other processes of a group how it ended.
 * @param profiled whether `--profile` is about this process, and not about those that it starts
 */
export function action<Options>(
  run: (invocation: Invocation<Options>) => Promise<void>,
  { profiled = true }: { profiled?: boolean } = {},
) {
  return async (...given: unknown[]): Promise<void> => {
    const command = given.at(-1) as Command;
    const options = command.optsWithGlobals<Options & GlobalOptions>();
    const recording =
      options.profile && profiled ? (await import('./profile.js')).startProfile(nameOf(command)) : undefined;
    const { openLog } = await import('./log.js');
    const place = placeFromEnvironment();
    const log = openLog({
      level: options.logLevel,
      // Of several processes rank 0 reports; the others report what goes wrong, and what --debug asks for.
      quiet: options.quiet || (place?.rank ?? 0) > 0,
      scopes: scopesOf(options),
    });
    try {
      await run({ options, args: command.processedArgs, log });
      await group?.leave();
    } catch (error) {
      await group?.fail(error);
      throw error;
    } finally {
      if (recording) finishProfile(recording, log);
      log.close();
    }
  };
}

/** The scopes whose debug messages are wanted: all of them at log level debug. */
function scopesOf({ debug, logLevel }: GlobalOptions): readonly DebugScope[] {
  return debug === true || (debug === undefined && logLevel === 'debug') ? SCOPES : (debug ?? []);
}

/** Writes a profile. That it cannot be written does not change how the command ends. */
function finishProfile(recording: Recording, log: Log): void {
  try {
    const path = recording.finish();
    if (path !== undefined) log.info(`CPU profile in ${path}`);
  } catch (error) {
    log.warn(`the CPU profile could not be written: ${(error as Error).message}`);
  }
}

/** A word of a command line as a shell reads it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** This process's share of the processors, if other processes of the group run on the same machine. */
function sharedThreads(localSize = 1): number {
  return Math.max(1, Math.floor(availableParallelism() / localSize));
}

/** Ends this process when the `alitok launch` that started it is gone. */
function endWithLauncher(): void {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel?.unref();
}

/** The options of an engine, as the command line gives them. */
export function engineOptions({ options, log }: Pick<Invocation<object>, 'options' | 'log'>): EngineOptions {
  const { threads, device, precision, tf32, deterministic, verbose } = options;
  const debug = log.debug && ((message: string) => log.debug!('engine', message));
  debug?.(environmentText(process.env));
  const warn = (message: string) => log.warn(message);
  return { threads, device, precision, tf32, deterministic, verbose, warn, debug };
}

/** Variables of the environment that change how engines compute. */
const ENGINE_VARIABLES =
  /^(ALITOK|CUDA|CUBLAS|GOMP|MKL|NCCL|OMP|OPENBLAS|PYTORCH|TF_(CPP|CUDNN|ENABLE|FORCE_GPU|GPU|NUM|XLA)|TORCH)_/;

/** The environment of an engine, in one line. */
function environmentText(environment: NodeJS.ProcessEnv): string {
  const found = Object.entries(environment).filter(([name]) => ENGINE_VARIABLES.test(name));
  return `environment: ${found.map(([name, value]) => `${name}=${value}`).join(' ') || 'no variables of engines'}`;
}

/**
 * Starts the engine that the options name, and makes what work needs. With `shared`, several processes can divide the
 * work, and join each other here; other work is refused where there are several.
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
  const localRank = place?.localRank;
  const engine = await openEngine(options.engine, { ...engineOptions({ options, log }), threads, localRank });
  if (place) {
    endWithLauncher();
    const { ProcessGroup } = await import('../../engine/distributed/process-group.js');
    log.debug?.('processes', `joining ${JSON.stringify(place)}`);
    const start = performance.now();
    group = await ProcessGroup.join(place);
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    log.debug?.(
      'processes',
      `rank ${place.rank} of ${place.size} joined in ${seconds} s, process ${process.pid}`,
    );
    log.info(`rank ${place.rank} of ${place.size} processes`);
  }
  return {
    engine,
    group,
    command: ['alitok', ...process.argv.slice(2)].map(quote).join(' '),
    reporter: log,
    interruptible: (work) =>
      interruptible(work, () => log.warn('stopping; a second signal stops at once, without saving')),
    logTo: log.toFile,
  };
}

/** Options of a command made by `withResume`. */
export interface ResumeFlags {
  resume?: Resume;
  allowChanges?: boolean;
}

/** Gives a `withConfig` command `--resume [auto]` and `--allow-changes`; `readResume` reads them. */
export function withResume(command: Command): Command {
  return command
    .option('--resume [auto]', 'continue from the newest checkpoint; auto: start a new run if there is none')
    .option(
      '--allow-changes',
      'resume even if config values or data differ from those the run was started with',
    )
    .hook('preAction', (_, given) => {
      // What follows --resume may be the first of the overrides.
      const { resume } = given.opts<{ resume?: string | true }>();
      if (typeof resume !== 'string' || resume === 'auto') return;
      (given.processedArgs.at(-1) as string[]).push(resume);
      given.setOptionValue('resume', true);
    });
}

/** How a `withResume` command treats a run that is in its folder. */
export function readResume({ resume = false, allowChanges = false }: ResumeFlags) {
  return { resume, allowChanges };
}

/**
 * The config that a `withConfig` command was started with, and where its values come from. `defaults` are sections that it
 * takes what it leaves from.
 * @throws ConfigError
 */
export async function resolveInvocation(
  { options, args, log }: Invocation<ConfigOptions>,
  defaults?: Defaults,
): Promise<ResolvedConfig> {
  const { resolveConfig, valuesOf } = await import('../../config/load.js');
  const resolved = resolveConfig(options.config, args.at(-1) as string[], defaults);
  const { config, sourceOf } = resolved;
  if (log.debug)
    for (const { path, value } of valuesOf(config)) {
      const source = sourceOf(path);
      if (source !== undefined)
        log.debug('config', `${path.join('.')} = ${JSON.stringify(value)} (${source})`);
    }
  return resolved;
}

/** The experiment that a `withConfig` command was started with; `defaults` as in `resolveInvocation`. @throws ConfigError */
export async function readConfig(
  invocation: Invocation<ConfigOptions>,
  defaults?: Defaults,
): Promise<Config> {
  return (await resolveInvocation(invocation, defaults)).config;
}
