import type { Command } from 'commander';
import { action, type Invocation, openJob } from '../base/command.js';
import {
  dataOption,
  examples,
  featuresOption,
  type ImageFlags,
  listOption,
  maxPixelsOption,
  outFile,
  required,
  requireWithAdvice,
  sizeOption,
  WHICH_FEATURES,
  wholeNumber,
} from '../base/options.js';
import { showResult } from '../base/output.js';

interface Options extends Pick<ImageFlags, 'maxPixels'> {
  data: string;
  list?: string;
  features: string;
  size?: number;
  keep: number;
  out: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { data, list, features, size, keep, out, maxPixels } = invocation.options;
  const { computeStatistics } = await import('../../eval/compute-statistics.js');
  const job = await openJob(invocation, { shared: true });
  const result = await computeStatistics({ images: data, list, features, size, keep, out, maxPixels }, job);
  if (result) await showResult(result, job);
}

export function register(program: Command): void {
  const command = program
    .command('stats')
    .description('compute reference statistics for `alitok eval generation`')
    .addOption(required(dataOption('a folder of images, .tar files, or .npz with arr_0 (N, S, S, 3) uint8')));
  requireWithAdvice(
    command,
    featuresOption('feature network: Inception (.pth or .pb), or a run of `alitok train-features`'),
    WHICH_FEATURES,
  )
    .addOption(required(outFile('.npz with mu, sigma, mu_s, sigma_s, as the ADM evaluator reads it')))
    .addOption(listOption())
    .addOption(sizeOption('--data'))
    .option(
      '--keep <n>',
      'images to store in the file, spread evenly, for precision and recall (ADM: 10000)',
      wholeNumber(0),
      0,
    )
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok stats -d imagenet/train --size 256 --features pt_inception-2015-12-05-6726825d.pth --keep 10000 -o reference.npz',
          'a reference of all training images, like that of ADM',
        ],
      ]),
    )
    .action(action(run));
}
