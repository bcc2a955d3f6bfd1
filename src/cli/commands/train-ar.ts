import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  dryRunOption,
  examples,
  type Invocation,
  openJob,
  type ResumeFlags,
  readConfig,
  readResume,
  withConfig,
  withResume,
} from '../base/command.js';

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
      '-t, --tokens <path>',
      'token cache of `alitok tokenize`, or a folder of per-image .npz files',
    )
    .option('--tokenizer <path>', 'the tokenizer that made the cache, to draw samples during training')
    .requiredOption('-r, --run <folder>', 'the run folder')
    .addOption(dryRunOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok train-ar -c configs/cifar10.yaml -t runs/tokens.safetensors --tokenizer runs/tokenizer -r runs/ar',
          'train, with sample pictures on the way',
        ],
        [
          'alitok train-ar -c configs/alitok_b.yaml -t imagenet.safetensors -r runs/b',
          'the published model B',
        ],
      ]),
    )
    .action(action(run));
}
