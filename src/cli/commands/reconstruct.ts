import type { Command } from 'commander';
import {
  action,
  examples,
  type ImageFlags,
  type Invocation,
  maxPixelsOption,
  openJob,
  wholeNumber,
} from '../base/command.js';

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
    .description('show images beside what the tokenizer makes of them')
    .requiredOption('--tokenizer <path>', 'tokenizer run, .safetensors or published .pth file')
    .requiredOption('-d, --data <path>', 'a folder of images, or .tar files')
    .option('--list <file>', 'only the images that this file names')
    .requiredOption('-o, --out <folder>', 'gets pairs.png')
    .option('-n, --count <n>', 'images, spread evenly over the folder', wholeNumber(1), 24)
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        ['alitok reconstruct --tokenizer runs/tokenizer -d cifar10/test -o out', 'a sheet of 24 pairs'],
      ]),
    )
    .action(action(run));
}
