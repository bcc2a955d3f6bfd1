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
  readConfig,
  withConfig,
} from '../base/command.js';

interface Options extends ConfigOptions, ImageFlags {
  tokenizer: string;
  data: string;
  list?: string;
  out: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokenizer, data, list, out, maxPixels, allowEmptyClasses } = invocation.options;
  const { tokenize } = await readConfig(invocation);
  const { tokenizeDataset } = await import('../../tokens/tokenize-dataset.js');
  const settings = { crops: tokenize.crops, batchSize: tokenize.batch_size };
  const job = await openJob(invocation, { shared: true });
  const taken = { folder: data, list, maxPixels, allowEmptyClasses };
  const { images, usage } = await tokenizeDataset({ tokenizer, ...taken, out, ...settings }, job);
  if ((job.group?.rank ?? 0) > 0) return;
  const { used, entropy } = usage;
  console.log(
    `${images} images in ${out}; codebook usage ${(100 * used).toFixed(1)} %, ${entropy.toFixed(2)} bits`,
  );
}

export function register(program: Command): void {
  withConfig(program.command('tokenize'))
    .description('turn a data set into the codes that the generator is trained on')
    .requiredOption('--tokenizer <path>', 'tokenizer run, .safetensors or published .pth file')
    .requiredOption('-d, --data <path>', 'images in class folders, or .tar files')
    .option('--list <file>', 'only the images that this file names, one path relative to the folder a line')
    .requiredOption('-o, --out <file>', 'the token cache to write')
    .addOption(maxPixelsOption())
    .addOption(emptyClassesOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok tokenize --tokenizer runs/tokenizer -d cifar10/train -o runs/tokens.safetensors',
          'ten crops an image',
        ],
        [
          'alitok tokenize --tokenizer runs/tokenizer -d cifar10/train -o t.safetensors tokenize.crops=flip',
          'each image and its mirror image',
        ],
      ]),
    )
    .action(action(run));
}
