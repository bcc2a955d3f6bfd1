import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  examples,
  type Invocation,
  openJob,
  type ResumeFlags,
  readConfig,
  readResume,
  withConfig,
  withResume,
} from '../command.js';

interface Options extends ConfigOptions, ResumeFlags {
  tokens: string;
  tokenizer?: string;
  run: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokens, tokenizer, run } = invocation.options;
  const resuming = readResume(invocation.options);
  const config = await readConfig(invocation);
  const { trainGenerator } = await import('../../train/train-generator.js');
  await trainGenerator(
    { config, run, tokens, tokenizer, ...resuming },
    await openJob(invocation, { shared: true }),
  );
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
