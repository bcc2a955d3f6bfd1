import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  dryRunOption,
  examples,
  type Invocation,
  openJob,
  readConfig,
  withConfig,
} from '../command.js';

interface Options extends ConfigOptions {
  tokens: string;
  tokenizer?: string;
  run: string;
  resume?: boolean;
  dryRun?: boolean;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokens, tokenizer, run, resume = false, dryRun } = invocation.options;
  const config = await readConfig(invocation);
  const { trainGenerator } = await import('../../train/train-generator.js');
  const wanted = { config, run, tokens, tokenizer, resume };
  const job = await openJob(invocation);
  if (!dryRun) return trainGenerator(wanted, job);
  const { dryRunner } = await import('../dry-run.js');
  const { run: rehearse, finish } = dryRunner(invocation.log);
  await trainGenerator({ ...wanted, resume: false }, job, rehearse);
  finish();
}

export function register(program: Command): void {
  withConfig(program.command('train-ar'))
    .description('train the autoregressive generator on a token cache')
    .requiredOption(
      '-t, --tokens <path>',
      'token cache of `alitok tokenize`, or a folder of per-image .npz files',
    )
    .option('--tokenizer <path>', 'the tokenizer that made the cache, to draw samples during training')
    .requiredOption('-r, --run <folder>', 'the run folder')
    .option('--resume', 'go on from the newest checkpoint')
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
