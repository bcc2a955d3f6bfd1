import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  examples,
  type Invocation,
  openJob,
  readConfig,
  withConfig,
} from '../command.js';

interface Options extends ConfigOptions {
  data?: string;
  run: string;
  resume?: boolean;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { data, run, resume = false } = invocation.options;
  if (data !== undefined) (invocation.args.at(-1) as string[]).push(`data.train=${JSON.stringify(data)}`);
  const config = await readConfig(invocation);
  const { trainFeatures } = await import('../../train/train-features.js');
  await trainFeatures({ config, run, resume }, await openJob(invocation));
}

export function register(program: Command): void {
  withConfig(program.command('train-features'))
    .description("train a small classifier whose features stand in for Inception's in `alitok eval`")
    .option('-d, --data <folder>', 'training images in class folders (sets data.train)')
    .requiredOption('-r, --run <folder>', 'the run folder')
    .option('--resume', 'go on from the newest checkpoint')
    .addHelpText(
      'after',
      examples([
        [
          'alitok train-features -c configs/cifar10.yaml -d cifar10/train -r runs/features',
          'then --features runs/features',
        ],
      ]),
    )
    .action(action(run));
}
