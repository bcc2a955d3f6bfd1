import { dirname } from 'node:path';
import type { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import { action, examples, type Invocation, openJob, wholeNumber } from '../command.js';

const WHICH_FEATURES =
  'name the Inception of published results (pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, or ' +
  'classify_image_graph_def.pb of the ADM evaluator), or train a feature network on your data with `alitok train-features`';

/** Prints a result as a table, and writes it as JSON if `out` is given. */
async function show(result: object, out: string | undefined): Promise<void> {
  const entries = Object.entries(result).filter(([, value]) => value !== undefined);
  const width = Math.max(...entries.map(([name]) => name.length));
  const text = (value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(4) : value;
  for (const [name, value] of entries) console.log(`${name.padEnd(width)}  ${text(value)}`);
  if (out === undefined) return;
  const { makeFolder, writeFileAtomic } = await import('../../formats/atomic.js');
  await makeFolder(dirname(out));
  await writeFileAtomic(out, `${JSON.stringify(result, null, 2)}\n`);
}

interface ReconstructionOptions {
  tokenizer: string;
  data: string;
  list?: string;
  features?: string;
  vgg16?: string;
  lpips?: string;
  out?: string;
}

/** Throws ConfigError where one file of LPIPS is named without the other. */
function filesOfLPIPS({ vgg16, lpips }: ReconstructionOptions) {
  if (vgg16 !== undefined && lpips !== undefined) return { vgg16, lpips };
  if (vgg16 === undefined && lpips === undefined) return undefined;
  throw new ConfigError(
    "LPIPS needs --vgg16 (torchvision's vgg16-397923af.pth) and --lpips (the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth); name both, or neither",
  );
}

async function reconstruction(invocation: Invocation<ReconstructionOptions>): Promise<void> {
  const { tokenizer, data, list, features, out } = invocation.options;
  const files = filesOfLPIPS(invocation.options);
  const { evaluateTokenizer } = await import('../../eval/evaluate-tokenizer.js');
  if (features === undefined) invocation.log.warn(`no rFID without --features; ${WHICH_FEATURES}`);
  await show(
    await evaluateTokenizer(
      { tokenizer, folder: data, list, features, lpips: files },
      await openJob(invocation),
    ),
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
  const { evaluateSamples } = await import('../../eval/evaluate-samples.js');
  await show(await evaluateSamples({ samples, reference, features, size }, await openJob(invocation)), out);
}

export function register(program: Command): void {
  const command = program.command('eval').description('measure reconstructions or generated images');
  command
    .command('reconstruction')
    .description('PSNR, SSIM, LPIPS, codebook use and rFID of a tokenizer on a folder of images')
    .requiredOption('--tokenizer <path>', 'tokenizer run, .safetensors or published .pth file')
    .requiredOption('-d, --data <path>', 'a folder of images, or .tar files')
    .option('--list <file>', 'only the images that this file names')
    .option(
      '--features <path>',
      'Inception for rFID: a .pth or .pb file; or a run of `alitok train-features`',
    )
    .option('--vgg16 <file>', "for LPIPS: torchvision's vgg16-397923af.pth")
    .option('--lpips <file>', "for LPIPS: the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth")
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
    .requiredOption('--samples <path>', '.npz with arr_0 (N, S, S, 3) uint8, or a folder or .tar of images')
    .requiredOption('--reference <path>', 'the same, or an .npz with mu, sigma, mu_s, sigma_s')
    .option(
      '--features <path>',
      'Inception, needed: a .pth or .pb file; or a run of `alitok train-features` on the data',
    )
    .option('--size <pixels>', 'side of the images, if --samples is not an .npz', wholeNumber(1))
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
