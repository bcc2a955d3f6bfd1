import { type Command, Option } from 'commander';
import type { Config } from '../../config/schema.js';
import { type ConfigOptions, type Invocation, resolveInvocation } from './command.js';
import { number, wholeNumber, withConfig } from './options.js';

type Settings = Config['sample'];

/** Options of a command made by `withSampling`. */
export interface SamplingFlags extends ConfigOptions {
  seed?: number;
  batchSize?: number;
  guidanceScale?: number;
  guidancePower?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
}

/** The key of section `sample` that each flag sets. */
const KEYS: Record<Exclude<keyof SamplingFlags, keyof ConfigOptions>, keyof Settings> = {
  seed: 'seed',
  batchSize: 'batch_size',
  guidanceScale: 'guidance_scale',
  guidancePower: 'guidance_power',
  temperature: 'temperature',
  topK: 'top_k',
  topP: 'top_p',
};

/** Gives a command the settings of sampling, as options and as section `sample` of a config; `readSampling` reads them. */
export function withSampling(command: Command): Command {
  return withConfig(
    command,
    'sample.temperature=0.9',
    'YAML config, whose section sample sets what the options below do not',
  )
    .addOption(
      new Option(
        '--seed <n>',
        'random seed of the images (default, as for the settings below: what the generator was saved or published with)',
      ).argParser(wholeNumber(0)),
    )
    .option('--batch-size <n>', 'images sampled at once', wholeNumber(1))
    .option(
      '--guidance-scale <s>',
      'classifier-free guidance scale at the last token; 0: no guidance',
      number(0),
    )
    .option('--guidance-power <p>', 'how late along the sequence guidance grows', number(0))
    .option('--temperature <t>', 'sampling temperature; 0: always the most likely code', number(0))
    .option('--top-k <k>', 'sample from the k most likely codes only; 0: from all', wholeNumber(0))
    .option(
      '--top-p <p>',
      'sample from the most likely codes with this total probability only',
      number(0, 1),
    );
}

/**
 * The settings that a `withSampling` command was given: by options, else by the overrides, else by the config file. What
 * neither sets is absent, and stays as the generator was saved with; the defaults of a config do not count.
 * @throws ConfigError for a wrong config
 */
export async function readSampling(invocation: Invocation<SamplingFlags>): Promise<Partial<Settings>> {
  const { config, sourceOf } = await resolveInvocation(invocation);
  const settings: Partial<Settings> = {};
  for (const [flag, key] of Object.entries(KEYS) as [keyof typeof KEYS, keyof Settings][]) {
    const configured = sourceOf(['sample', key]) === undefined ? undefined : config.sample[key];
    const value = invocation.options[flag] ?? configured;
    if (value !== undefined) settings[key] = value;
  }
  return settings;
}

/** The options of `withSampling` that were given, as they are written. */
export function givenSampling({ options, args }: Invocation<SamplingFlags>): string[] {
  const flags = Object.keys(KEYS).filter((name) => options[name as keyof typeof KEYS] !== undefined);
  return [
    ...(options.config === undefined ? [] : ['--config']),
    ...flags.map((name) => `--${KEYS[name as keyof typeof KEYS].replaceAll('_', '-')}`),
    ...(args.at(-1) as string[]),
  ];
}
