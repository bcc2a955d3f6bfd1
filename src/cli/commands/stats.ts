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
import { showResult } from '../base/show-result.js';

interface Options extends Pick<ImageFlags, 'maxPixels'> {
  data: string;
  list?: string;
  features: string;
  size?: number;
  keep: number;
  out: string;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { data, ...options } = invocation.options;
  const { computeStatistics } = await import('../../eval/compute-statistics.js');
  const job = await openJob(invocation, { shared: true });
  const result = await computeStatistics({ images: data, ...options }, job);
  if (result) await showResult(result, job);
}

export function register(program: Command): void {
  program
    .command('stats')
    .description('compute the statistics that `alitok eval generation` takes as a reference')
    .requiredOption(
      '-d, --data <path>',
      'a folder of images, .tar files, or .npz with arr_0 (N, S, S, 3) uint8',
    )
    .requiredOption(
      '--features <path>',
      'network whose features are compared: Inception (.pth or .pb), or a run of `alitok train-features`',
    )
    .requiredOption('-o, --out <file>', '.npz with mu, sigma, mu_s, sigma_s, as the ADM evaluator reads it')
    .option('--list <file>', 'only the images that this file names')
    .option('--size <pixels>', 'side of the images, if --data is not an .npz', wholeNumber(1))
    .option(
      '--keep <n>',
      'images to keep in the file, spread evenly, for precision and recall (ADM: 10000)',
      wholeNumber(0),
      0,
    )
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok stats -d imagenet/train --size 256 --features pt_inception-2015-12-05-6726825d.pth --keep 10000 -o reference.npz',
          'a reference of all training images, as ADM has it',
        ],
      ]),
    )
    .action(action(run));
}
