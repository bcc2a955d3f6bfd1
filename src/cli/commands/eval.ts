import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import { action, examples, type Invocation, openJob, wholeNumber } from '../command.js';

/** Until this program reads Inception's weights. */
const WHICH_FEATURES =
  'train a feature network on your data with `alitok train-features`; the Inception of published results ' +
  '(pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, or classify_image_graph_def.pb of the ' +
  'ADM evaluator) is not supported yet';

/** Throws ConfigError for weights of Inception. */
function refuseInception(features: string): void {
  if (/\.(pth?|pb)$/.test(features))
    throw new ConfigError(`--features ${features} is not a feature network of alitok; ${WHICH_FEATURES}`);
}

/** Prints a result as a table, and writes it as JSON if `out` is given. */
async function show(result: object, out: string | undefined): Promise<void> {
  const entries = Object.entries(result).filter(([, value]) => value !== undefined);
  const width = Math.max(...entries.map(([name]) => name.length));
  const text = (value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(4) : value;
  for (const [name, value] of entries) console.log(`${name.padEnd(width)}  ${text(value)}`);
  if (out === undefined) return;
  const { outputError, writeFileAtomic } = await import('../../formats/atomic.js');
  try {
    await mkdir(dirname(out), { recursive: true });
  } catch (error) {
    throw outputError(out, error);
  }
  await writeFileAtomic(out, `${JSON.stringify(result, null, 2)}\n`);
}

interface ReconstructionOptions {
  tokenizer: string;
  data: string;
  list?: string;
  features?: string;
  out?: string;
}

async function reconstruction(invocation: Invocation<ReconstructionOptions>): Promise<void> {
  const { tokenizer, data, list, features, out } = invocation.options;
  const { evaluateTokenizer } = await import('../../eval/evaluate-tokenizer.js');
  if (features === undefined) invocation.log.warn(`no rFID without --features; ${WHICH_FEATURES}`);
  else refuseInception(features);
  await show(
    await evaluateTokenizer({ tokenizer, folder: data, list, features }, await openJob(invocation)),
    out,
  );
}

interface GenerationOptions {
  samples: string;
  reference: string;
  features?: string;
  size?: number;
  out?: string;
}

async function generation(invocation: Invocation<GenerationOptions>): Promise<void> {
  const { samples, reference, features, size, out } = invocation.options;
  if (features === undefined) throw new ConfigError(`--features is missing; ${WHICH_FEATURES}`);
  refuseInception(features);
  const { evaluateSamples } = await import('../../eval/evaluate-samples.js');
  await show(await evaluateSamples({ samples, reference, features, size }, await openJob(invocation)), out);
}

export function register(program: Command): void {
  const command = program.command('eval').description('measure reconstructions or generated images');
  command
    .command('reconstruction')
    .description('PSNR, SSIM, codebook use and rFID of a tokenizer on a folder of images')
    .requiredOption('--tokenizer <path>', 'tokenizer run, .safetensors or published .pth file')
    .requiredOption('-d, --data <folder>', 'images')
    .option('--list <file>', 'only the images that this file names')
    .option('--features <path>', 'feature network for rFID: a run of `alitok train-features`')
    .option(
      '-o, --out <file>',
      'also write the result as JSON; `alitok report` shows those in RUN/evaluations/',
    )
    .addHelpText(
      'after',
      examples([
        [
          'alitok eval reconstruction --tokenizer runs/tokenizer -d cifar10/test',
          'without a feature network',
        ],
      ]),
    )
    .action(action(reconstruction));
  command
    .command('generation')
    .description('gFID, sFID, inception score, precision and recall of samples')
    .requiredOption('--samples <path>', '.npz with arr_0 (N, S, S, 3) uint8, or a folder of images')
    .requiredOption('--reference <path>', 'the same, or an .npz with mu, sigma, mu_s, sigma_s')
    .option('--features <path>', 'feature network, needed: a run of `alitok train-features` on the data')
    .option('--size <pixels>', 'side of the images, if --samples is a folder', wholeNumber(1))
    .option(
      '-o, --out <file>',
      'also write the result as JSON; `alitok report` shows those in RUN/evaluations/',
    )
    .addHelpText(
      'after',
      examples([
        [
          'alitok eval generation --samples out/samples.npz --reference cifar10/train --features runs/features',
          'samples against the training images',
        ],
      ]),
    )
    .action(action(generation));
}
