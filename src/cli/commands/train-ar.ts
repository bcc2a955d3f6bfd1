import type { Command } from 'commander';
import type { Defaults } from '../../config/load.js';
import { ConfigError } from '../../errors.js';
import {
  action,
  type ConfigOptions,
  type Invocation,
  openJob,
  type ResumeFlags,
  readConfig,
  readResume,
  withResume,
} from '../base/command.js';
import {
  dryRunOption,
  examples,
  initOption,
  required,
  runOption,
  tokenizerOption,
  withConfig,
} from '../base/options.js';

interface Options extends ConfigOptions, ResumeFlags {
  tokens: string;
  tokenizer?: string;
  run: string;
  init?: string;
  initClasses?: string;
  dryRun?: boolean;
}

/** What a config leaves to the weights that it starts from, and to the tokens. */
async function defaultsFrom(init: string, tokens: string): Promise<Defaults> {
  const { defaultsFrom } = await import('../../train/generator/init.js');
  return { from: `--init ${init}`, values: await defaultsFrom(init, tokens) };
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokens, tokenizer, run, init: path, initClasses, dryRun } = invocation.options;
  const resuming = readResume(invocation.options);
  if (path === undefined && initClasses !== undefined)
    throw new ConfigError('--init-classes maps the classes of trained weights; give --init too');
  const defaults = path === undefined ? undefined : await defaultsFrom(path, tokens);
  const config = await readConfig(invocation, defaults);
  const { trainGenerator } = await import('../../train/generator/train.js');
  const init = path === undefined ? undefined : { path, classes: initClasses };
  const wanted = { config, run, tokens, tokenizer, init, ...resuming };
  if (!dryRun) return trainGenerator(wanted, await openJob(invocation, { shared: true }));
  const { dryRun: rehearse } = await import('../base/dry-run.js');
  await rehearse(invocation.log, async (runner) => trainGenerator(wanted, await openJob(invocation), runner));
}

export function register(program: Command): void {
  withResume(withConfig(program.command('train-ar')))
    .description('train the autoregressive generator on a token cache')
    .requiredOption(
      '--tokens <path>',
      'token cache of `alitok tokenize`, or a folder of per-image .npz files',
    )
    .addOption(required(runOption()))
    .addOption(tokenizerOption('draw samples during training with the tokenizer that made the tokens'))
    .addOption(initOption('generator'))
    .option(
      '--init-classes <file>',
      'lines `own class = class of the initial weights`: classes to start from trained ones',
    )
    .addOption(dryRunOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok train-ar -c configs/cifar10.yaml --tokens runs/tokens.safetensors -t runs/tokenizer -r runs/ar',
          'train, and draw samples on the way',
        ],
        [
          'alitok train-ar -c configs/alitok_b.yaml --tokens imagenet.safetensors -r runs/b',
          'the published model B',
        ],
        [
          'alitok train-ar -c configs/finetune.yaml --init alitok_b.bin --tokens photos.safetensors -r runs/mine',
          'fine-tune it to own classes',
        ],
      ]),
    )
    .action(action(run));
}
