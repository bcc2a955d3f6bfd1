import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  emptyClassesOption,
  examples,
  type ImageFlags,
  type Invocation,
  maxPixelsOption,
  openJob,
  type ResumeFlags,
  readConfig,
  readResume,
  withConfig,
  withResume,
} from '../base/command.js';

interface Options extends ConfigOptions, ImageFlags, ResumeFlags {
  data?: string;
  run: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { data, run, maxPixels, allowEmptyClasses } = invocation.options;
  if (data !== undefined) (invocation.args.at(-1) as string[]).push(`data.train=${JSON.stringify(data)}`);
  const config = await readConfig(invocation);
  const { trainFeatures } = await import('../../train/features/train.js');
  await trainFeatures(
    { config, run, images: { maxPixels, allowEmptyClasses }, ...readResume(invocation.options) },
    await openJob(invocation, { shared: true }),
  );
}

export function register(program: Command): void {
  withResume(withConfig(program.command('train-features')))
    .description("train a small classifier whose features stand in for Inception's in `alitok eval`")
    .option('-d, --data <folder>', 'training images in class folders (sets data.train)')
    .requiredOption('-r, --run <folder>', 'the run folder')
    .addOption(maxPixelsOption())
    .addOption(emptyClassesOption())
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
