import { type Command, InvalidArgumentError, Option } from 'commander';
import type { WeightKind } from '../../engine/ops/index.js';
import { DEBUG_SCOPES, type DebugScope } from '../../job/reporter.js';
import { nearest } from '../../suggest.js';

// Options that several commands have. Each is declared once, so that a name, its letter and its meaning are the same
// in every command; test/cli/grammar.test.ts checks it.

/** Parses an option that is a whole number of at least `minimum`. */
export function wholeNumber(minimum: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum)
      throw new InvalidArgumentError(`It must be a whole number of at least ${minimum}.`);
    return value;
  };
}

/** Parses an option that is a number in [minimum, maximum]. */
export function number(minimum: number, maximum = Number.POSITIVE_INFINITY) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= minimum && value <= maximum))
      throw new InvalidArgumentError(
        Number.isFinite(maximum)
          ? `It must be from ${minimum} to ${maximum}.`
          : `It must be at least ${minimum}.`,
      );
    return value;
  };
}

/** An option with a fixed set of values, and the one it has by default. */
export function choice(
  flags: string,
  description: string,
  values: readonly string[],
  standard?: string,
): Option {
  const option = new Option(flags, description).choices([...values]);
  return standard === undefined ? option : option.default(standard);
}

/** Makes an option mandatory. */
export function required(option: Option): Option {
  return option.makeOptionMandatory();
}

/** Makes an option of a command mandatory, with `advice` in the error where it is missing. */
export function requireWithAdvice(command: Command, option: Option, advice: string): Command {
  const missing = `required option '${option.flags}' not specified`;
  return command.addOption(required(option)).configureOutput({
    outputError: (text, write) => write(text.replace(missing, `${missing}; ${advice}`)),
  });
}

const TOKENIZER_FILES = 'run folder, .safetensors or published .pth file';
const GENERATOR_FILES = 'run folder, .safetensors or published .bin file';

export const tokenizerOption = (use = 'the tokenizer') =>
  new Option('-t, --tokenizer <path>', `${use}: ${TOKENIZER_FILES}`);

export const generatorOption = (use = 'the generator') =>
  new Option('-g, --generator <path>', `${use}: ${GENERATOR_FILES}`);

/** The trained weights that a training starts from. */
export const initOption = (files: 'tokenizer' | 'generator') =>
  new Option(
    '--init <path>',
    `start from trained weights, whose sizes are taken where the config leaves them: ${files === 'tokenizer' ? TOKENIZER_FILES : GENERATOR_FILES}`,
  );

export const loraOption = () =>
  new Option(
    '--lora <path>',
    'adapters of the generator: the run or file of a training with lora.merge=false',
  );

export const dataOption = (description: string) => new Option('-d, --data <path>', description);

export const listOption = () =>
  new Option('--list <file>', 'use only the images that this file lists, one path relative to --data a line');

export const runOption = (description = 'the run folder') => new Option('-r, --run <folder>', description);

export const outFile = (description: string, standard?: string) =>
  new Option('-o, --out <file>', description).default(standard);

export const outFolder = (description: string, standard?: string) =>
  new Option('-o, --out <folder>', description).default(standard);

export const countOption = (description: string) =>
  new Option('-n, --count <n>', description).argParser(wholeNumber(1));

export const featuresOption = (description: string) => new Option('--features <path>', description);

export const sizeOption = (images: string) =>
  new Option('--size <pixels>', `side of the images, if ${images} is not an .npz`).argParser(wholeNumber(1));

export const jsonOption = () => new Option('--json', 'print JSON, one object a line');

/** Where to get the network that features come from. */
export const WHICH_FEATURES =
  'name the Inception of published results (pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, or ' +
  'classify_image_graph_def.pb of the ADM evaluator), or train a feature network on your data with `alitok train-features`';

/** What commands that read images take; see `maxPixelsOption` and `emptyClassesOption`. */
export interface ImageFlags {
  maxPixels?: number;
  allowEmptyClasses?: boolean;
}

/** How large a single image may be. */
export const maxPixelsOption = () =>
  new Option(
    '--max-pixels <n>',
    'most pixels an image may have; a larger one counts as unreadable (default: 268 million)',
  ).argParser(wholeNumber(1));

/** Whether a class may have no images. */
export const emptyClassesOption = () =>
  new Option('--allow-empty-classes', 'accept class folders without images; each keeps its class number');

/** Whether to measure what a training run would take instead of running it. */
export const dryRunOption = () =>
  new Option('--dry-run', 'do not train; report the time, memory and disk space that the run would take');

/** What the weights of a generator are stored in while it samples. */
export function weightsOption(): Option {
  const kinds: WeightKind[] = ['float32', 'bf16', 'int8'];
  return choice(
    '--weights <kind>',
    'store the weights in fewer bits while sampling: faster, slightly less exact',
    kinds,
    'float32',
  );
}

const CONFIG = 'YAML config of the experiment (default: the published values)';

/** Gives a command `--config FILE`. */
export function configOption(command: Command, description = CONFIG): Command {
  return command.option('-c, --config <file>', description);
}

/** Gives a command `--config FILE` and trailing `key.sub=value` overrides; `readConfig` reads them. */
export function withConfig(command: Command, example = 'generator.layers=12', description = CONFIG): Command {
  return configOption(command.argument('[overrides...]', `config values, such as ${example}`), description);
}

/** Help text with example command lines: `[['alitok eval …', 'what it does'], …]`. */
export function examples(lines: readonly (readonly [command: string, purpose: string])[]): string {
  return `\nExamples:\n${lines.map(([command, purpose]) => `  # ${purpose}\n  $ ${command}\n`).join('')}`;
}

export const SCOPES = Object.keys(DEBUG_SCOPES) as DebugScope[];

/** `--debug`, with or without scopes. */
export function debugOption(): Option {
  const option = new Option(
    '--debug [scopes]',
    `print details about these, or about all: ${SCOPES.join(', ')}`,
  );
  return option.argParser(parseScopes);
}

/** The scopes of `config,data`; all of them for `all`. */
function parseScopes(text: string): DebugScope[] {
  return text.split(',').flatMap((word): DebugScope[] => {
    if (word === 'all') return SCOPES;
    const scope = SCOPES.find((one) => one === word);
    if (scope) return [scope];
    const meant = nearest(word, SCOPES);
    throw new InvalidArgumentError(
      `${meant ? `Did you mean ${meant}? ` : ''}Scopes are ${SCOPES.join(', ')}, or all.`,
    );
  });
}

/**
 * Lets `--debug` stand without scopes in front of a command or of another argument, which a parser would take for
 * scopes: the words of a command line with `--debug=all` there.
 */
export function completeDebug(words: readonly string[], commands: readonly string[]): string[] {
  return words.map((word, i) => {
    const next = words[i + 1] ?? '';
    const isScopes = /^[a-z]+(,[a-z]+)*$/.test(next) && !commands.includes(next);
    return word === '--debug' && !isScopes ? '--debug=all' : word;
  });
}
