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
import {
  dataOption,
  emptyClassesOption,
  examples,
  type ImageFlags,
  maxPixelsOption,
  required,
  runOption,
  withConfig,
} from '../base/options.js';

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
  withResume(withConfig(program.command('train-features'), 'features.steps=1000'))
    .description("train a small classifier whose features replace Inception's in `alitok eval`")
    .addOption(dataOption('training images in class folders, or .tar files (sets data.train)'))
    .addOption(required(runOption()))
    .addOption(maxPixelsOption())
    .addOption(emptyClassesOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok train-features -c configs/cifar10.yaml -d cifar10/train -r runs/features',
          'for --features runs/features',
        ],
      ]),
    )
    .action(action(run));
}
