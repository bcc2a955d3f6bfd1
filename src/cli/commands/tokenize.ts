import type { Command } from 'commander';
import { action, type ConfigOptions, type Invocation, openJob, readConfig } from '../base/command.js';
import {
  choice,
  dataOption,
  emptyClassesOption,
  examples,
  type ImageFlags,
  listOption,
  maxPixelsOption,
  outFile,
  required,
  tokenizerOption,
  withConfig,
} from '../base/options.js';

interface Options extends ConfigOptions, ImageFlags {
  tokenizer: string;
  data: string;
  list?: string;
  out: string;
  crops?: 'ten-crop' | 'flip';
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { tokenizer, data, list, out, crops, maxPixels, allowEmptyClasses } = invocation.options;
  if (crops !== undefined) (invocation.args.at(-1) as string[]).push(`tokenize.crops=${crops}`);
  const { tokenize } = await readConfig(invocation);
  const { tokenizeDataset } = await import('../../tokens/tokenize-dataset.js');
  const settings = { crops: tokenize.crops, batchSize: tokenize.batch_size };
  const job = await openJob(invocation, { shared: true });
  const images = { folder: data, list, maxPixels, allowEmptyClasses };
  const made = await tokenizeDataset({ tokenizer, ...images, out, ...settings }, job);
  if ((job.group?.rank ?? 0) > 0) return;
  const { used, entropy } = made.usage;
  console.log(
    `${made.images} images in ${out}; codebook usage ${(100 * used).toFixed(1)} %, entropy ${entropy.toFixed(2)} bits`,
  );
}

export function register(program: Command): void {
  withConfig(program.command('tokenize'), 'tokenize.batch_size=20')
    .description('encode a data set as the tokens that the generator is trained on')
    .addOption(required(tokenizerOption()))
    .addOption(required(dataOption('images in class folders, or .tar files')))
    .addOption(required(outFile('the token cache to write')))
    .addOption(
      choice(
        '--crops <kind>',
        "crops of each image: ten-crop (corners, center and their mirror images) or flip (center and its mirror image) (default: the config's tokenize.crops, ten-crop)",
        ['ten-crop', 'flip'],
      ),
    )
    .addOption(listOption())
    .addOption(maxPixelsOption())
    .addOption(emptyClassesOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok tokenize -t runs/tokenizer -d cifar10/train -o runs/tokens.safetensors',
          'ten crops an image',
        ],
        [
          'alitok tokenize -t runs/tokenizer -d cifar10/train -o tokens.safetensors --crops flip',
          'each image and its mirror image',
        ],
      ]),
    )
    .action(action(run));
}
