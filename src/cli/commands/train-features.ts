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
  data?: string;
  run: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { data, run } = invocation.options;
  if (data !== undefined) (invocation.args.at(-1) as string[]).push(`data.train=${JSON.stringify(data)}`);
  const config = await readConfig(invocation);
  const { trainFeatures } = await import('../../train/train-features.js');
  await trainFeatures(
    { config, run, ...readResume(invocation.options) },
    await openJob(invocation, { shared: true }),
  );
}

export function register(program: Command): void {
  withResume(withConfig(program.command('train-features')))
    .description("train a small classifier whose features stand in for Inception's in `alitok eval`")
    .option('-d, --data <folder>', 'training images in class folders (sets data.train)')
    .requiredOption('-r, --run <folder>', 'the run folder')
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
