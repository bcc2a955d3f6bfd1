import type { Command } from 'commander';
import { action, type Invocation, openJob } from '../base/command.js';
import {
  countOption,
  dataOption,
  examples,
  type ImageFlags,
  listOption,
  maxPixelsOption,
  outFolder,
  required,
  tokenizerOption,
} from '../base/options.js';

interface Options extends Pick<ImageFlags, 'maxPixels'> {
  tokenizer: string;
  data: string;
  list?: string;
  out: string;
  count: number;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokenizer, data, list, maxPixels, count, out } = invocation.options;
  const { reconstruct } = await import('../../sample/reconstruct.js');
  const { path, pairs } = await reconstruct(
    { tokenizer, folder: data, list, maxPixels, count, out },
    await openJob(invocation),
  );
  console.log(`${pairs} pairs in ${path}`);
}

export function register(program: Command): void {
  program
    .command('reconstruct')
    .description('draw images next to their reconstructions')
    .addOption(required(tokenizerOption()))
    .addOption(required(dataOption('a folder of images, or .tar files')))
    .addOption(required(outFolder('folder for pairs.png')))
    .addOption(countOption('images, spread evenly over the data').default(24))
    .addOption(listOption())
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([['alitok reconstruct -t runs/tokenizer -d cifar10/test -o out', 'a sheet of 24 pairs']]),
    )
    .action(action(run));
}
