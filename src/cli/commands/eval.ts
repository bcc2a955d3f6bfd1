import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import type { Job } from '../../job/job.js';
import {
  action,
  examples,
  type ImageFlags,
  type Invocation,
  maxPixelsOption,
  openJob,
  wholeNumber,
} from '../base/command.js';
import { refuseForeignResult, showResult } from '../base/show-result.js';

/** Images of the published evaluation. */
const PUBLISHED_COUNT = 50_000;

const WHICH_FEATURES =
  'name the Inception of published results (pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid, or ' +
  'classify_image_graph_def.pb of the ADM evaluator), or train a feature network on your data with `alitok train-features`';

interface ReconstructionOptions extends Pick<ImageFlags, 'maxPixels'> {
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
  const { tokenizer, data, list, maxPixels, features, out } = invocation.options;
  const files = filesOfLPIPS(invocation.options);
  await refuseForeignResult(out);
  const { evaluateTokenizer } = await import('../../eval/evaluate-tokenizer.js');
  const job = await openJob(invocation, { shared: true });
  const first = (job.group?.rank ?? 0) === 0;
  if (features === undefined && first) job.reporter.info(`no rFID without --features; ${WHICH_FEATURES}`);
  const result = await evaluateTokenizer(
    { tokenizer, folder: data, list, maxPixels, features, lpips: files },
    job,
  );
  if (result) await showResult(result, job, { out });
}

interface GenerationOptions extends Pick<ImageFlags, 'maxPixels'> {
  samples: string;
  reference: string;
  features?: string;
  size?: number;
  generator?: string;
  tokenizer?: string;
  count?: number;
  batch?: number;
  out?: string;
}

/**
 * Samples into the folder `--samples`, or goes on with what an interrupted run left there; gives the file of the images
 * and what they are made of.
 */
async function sampleFirst(options: GenerationOptions, job: Job): Promise<{ samples: string; more: object }> {
  const { samples: out, generator, tokenizer, count = PUBLISHED_COUNT, batch } = options;
  if (generator === undefined || tokenizer === undefined)
    throw new ConfigError('--generator and --tokenizer go together; name both, or evaluate --samples alone');
  const { DONE_FILE, sampleImages } = await import('../../sample/sample-images.js');
  const { modelChecksum } = await import('../../run/layout.js');
  const settings = batch === undefined ? {} : { batch_size: batch };
  const images = { count };
  await sampleImages(
    { generator, tokenizer, images, out, png: false, grid: false, weights: 'float32', reuse: true, settings },
    job,
  );
  await job.group?.any(false); // rank 0 writes the file that all read
  const sampling = JSON.parse(await readFile(join(out, DONE_FILE), 'utf8'));
  const [generator_sha256, tokenizer_sha256] = [
    await modelChecksum(generator),
    await modelChecksum(tokenizer),
  ];
  return {
    samples: join(out, 'samples.npz'),
    more: { sampling: { ...sampling, generator_sha256, tokenizer_sha256 } },
  };
}

async function generation(invocation: Invocation<GenerationOptions>): Promise<void> {
  const { options } = invocation;
  const { reference, features, size, maxPixels, generator, tokenizer, out } = options;
  if (features === undefined) throw new ConfigError(`--features is missing; ${WHICH_FEATURES}`);
  const fromRun = generator !== undefined || tokenizer !== undefined;
  const given = (['count', 'batch'] as const).filter((name) => options[name] !== undefined);
  if (!fromRun && given.length > 0)
    throw new ConfigError(`--${given[0]} is for sampling; name --generator and --tokenizer, or leave it out`);
  await refuseForeignResult(out);
  const { evaluateSamples } = await import('../../eval/evaluate-samples.js');
  const job = await openJob(invocation, { shared: true });
  const { samples, more } = fromRun
    ? await sampleFirst(options, job)
    : { samples: options.samples, more: undefined };
  const result = await evaluateSamples({ samples, reference, features, size, maxPixels }, job);
  if (result) await showResult(result, job, { out, more });
}

export function register(program: Command): void {
  const command = program.command('eval').description('measure reconstructions or generated images');
  command
    .command('reconstruction')
    .description('PSNR, SSIM, LPIPS, codebook use and rFID of a tokenizer on images')
    .requiredOption('--tokenizer <path>', 'tokenizer run, .safetensors or published .pth file')
    .requiredOption(
      '-d, --data <path>',
      'a folder of images, .tar files, or .npz with arr_0 (N, S, S, 3) uint8',
    )
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
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok eval reconstruction --tokenizer runs/tokenizer -d cifar10/test',
          'without a feature network',
        ],
        [
          'alitok launch -p 8 -- eval reconstruction --tokenizer AliTok.pth -d imagenet/val --features classify_image_graph_def.pb',
          'on all GPUs of a machine, with the same numbers',
        ],
      ]),
    )
    .action(action(reconstruction));
  command
    .command('generation')
    .description('gFID, sFID, inception score, precision, recall and KID of samples')
    .requiredOption(
      '--samples <path>',
      '.npz with arr_0 (N, S, S, 3) uint8, or a folder or .tar of images; with --generator the folder that gets samples.npz',
    )
    .requiredOption(
      '--reference <path>',
      'images too, or an .npz with mu, sigma, mu_s, sigma_s: of `alitok stats` or of ADM',
    )
    .option(
      '--features <path>',
      'Inception, needed: a .pth or .pb file; or a run of `alitok train-features` on the data',
    )
    .option('--size <pixels>', 'side of the images, if --samples is not an .npz', wholeNumber(1))
    .option(
      '-g, --generator <path>',
      'sample first, with this generator: run, .safetensors or published .bin',
    )
    .option('--tokenizer <path>', 'and this tokenizer; an interrupted run goes on where it stopped')
    .option('--count <n>', `images to sample (default: ${PUBLISHED_COUNT})`, wholeNumber(1))
    .option('--batch <n>', 'images sampled at once', wholeNumber(1))
    .option(
      '-o, --out <file>',
      'also write the result as JSON; `alitok report` shows those in RUN/evaluations/',
    )
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok eval generation --samples out/samples.npz --reference cifar10/train --features runs/features',
          'samples against the training images',
        ],
        [
          'alitok eval generation -g alitok_b.bin --tokenizer AliTok.pth --samples eval --reference VIRTUAL_imagenet256_labeled.npz --features classify_image_graph_def.pb -o result.json',
          'the published evaluation, from the weights to the numbers',
        ],
      ]),
    )
    .action(action(generation));
}
