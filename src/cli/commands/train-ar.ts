import type { Command } from 'commander';
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
import { dryRunOption, examples, required, runOption, tokenizerOption, withConfig } from '../base/options.js';

interface Options extends ConfigOptions, ResumeFlags {
  tokens: string;
  tokenizer?: string;
  run: string;
  dryRun?: boolean;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokens, tokenizer, run, dryRun } = invocation.options;
  const resuming = readResume(invocation.options);
  const config = await readConfig(invocation);
  const { trainGenerator } = await import('../../train/generator/train.js');
  const wanted = { config, run, tokens, tokenizer, ...resuming };
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
      ]),
    )
    .action(action(run));
}
