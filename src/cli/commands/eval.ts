import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { ConfigError } from '../../errors.js';
import type { Job } from '../../job/job.js';
import { action, type Invocation, openJob } from '../base/command.js';
import {
  countOption,
  dataOption,
  examples,
  featuresOption,
  generatorOption,
  type ImageFlags,
  listOption,
  loraOption,
  maxPixelsOption,
  outFile,
  required,
  requireWithAdvice,
  sizeOption,
  tokenizerOption,
  WHICH_FEATURES,
} from '../base/options.js';
import { refuseForeignResult, showResult } from '../base/output.js';
import { givenSampling, readSampling, type SamplingFlags, withSampling } from '../base/sampling.js';

/** Number of samples in the published evaluation. */
const PUBLISHED_COUNT = 50_000;

interface ReconstructionOptions extends Pick<ImageFlags, 'maxPixels'> {
  tokenizer: string;
  data: string;
  list?: string;
  features?: string;
  vgg16?: string;
  lpips?: string;
  out?: string;
}

/** The files of LPIPS, if they are given. @throws ConfigError where one is given without the other */
function filesOfLPIPS({ vgg16, lpips }: ReconstructionOptions) {
  if (vgg16 !== undefined && lpips !== undefined) return { vgg16, lpips };
  if (vgg16 === undefined && lpips === undefined) return undefined;
  throw new ConfigError(
    "LPIPS needs --vgg16 (torchvision's vgg16-397923af.pth) and --lpips (the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth); give both, or neither",
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

interface GenerationOptions extends Pick<ImageFlags, 'maxPixels'>, SamplingFlags {
  samples: string;
  reference: string;
  features: string;
  size?: number;
  generator?: string;
  tokenizer?: string;
  lora?: string;
  count?: number;
  out?: string;
}

/**
 * Samples into the folder `--samples`, or continues what an interrupted run left there. Gives the file of the images and
 * a description of how they were made.
 */
async function sampleFirst(
  { samples: out, generator, tokenizer, lora, count = PUBLISHED_COUNT }: GenerationOptions,
  settings: Awaited<ReturnType<typeof readSampling>>,
  job: Job,
): Promise<{ samples: string; more: object }> {
  if (generator === undefined || tokenizer === undefined)
    throw new ConfigError(
      '--generator and --tokenizer belong together; give both, or neither to evaluate --samples as they are',
    );
  const { DONE_FILE, sampleImages } = await import('../../sample/sample-images.js');
  const { modelChecksum } = await import('../../run/layout.js');
  const images = { count };
  await sampleImages(
    {
      generator,
      tokenizer,
      lora,
      images,
      out,
      png: false,
      grid: false,
      weights: 'float32',
      reuse: true,
      settings,
    },
    job,
  );
  await job.group?.any(false); // wait until rank 0 has written the file that all ranks read
  const sampling = JSON.parse(await readFile(join(out, DONE_FILE), 'utf8'));
  const checksums = {
    generator_sha256: await modelChecksum(generator),
    tokenizer_sha256: await modelChecksum(tokenizer),
    ...(lora !== undefined && { lora_sha256: await modelChecksum(lora) }),
  };
  return { samples: join(out, 'samples.npz'), more: { sampling: { ...sampling, ...checksums } } };
}

async function generation(invocation: Invocation<GenerationOptions>): Promise<void> {
  const { options } = invocation;
  const { reference, features, size, maxPixels, generator, tokenizer, out } = options;
  const fromRun = generator !== undefined || tokenizer !== undefined;
  const given = [
    ...(options.count === undefined ? [] : ['--count']),
    ...(options.lora === undefined ? [] : ['--lora']),
    ...givenSampling(invocation),
  ];
  if (!fromRun && given.length > 0)
    throw new ConfigError(
      `${given[0]} is for sampling; give --generator and --tokenizer too, or leave it out`,
    );
  const settings = await readSampling(invocation);
  await refuseForeignResult(out);
  const { evaluateSamples } = await import('../../eval/evaluate-samples.js');
  const job = await openJob(invocation, { shared: true });
  const { samples, more } = fromRun
    ? await sampleFirst(options, settings, job)
    : { samples: options.samples, more: undefined };
  const result = await evaluateSamples({ samples, reference, features, size, maxPixels }, job);
  if (result) await showResult(result, job, { out, more });
}

/** Where a result goes. */
const resultFile = () =>
  outFile('also write the result as JSON; `alitok report` shows those in RUN/evaluations/');

export function register(program: Command): void {
  const command = program.command('eval').description('evaluate reconstructions or generated images');
  command
    .command('reconstruction')
    .description('PSNR, SSIM, LPIPS, codebook usage and rFID of a tokenizer on images')
    .addOption(required(tokenizerOption()))
    .addOption(required(dataOption('a folder of images, .tar files, or .npz with arr_0 (N, S, S, 3) uint8')))
    .addOption(
      featuresOption(
        'feature network for rFID: Inception (.pth or .pb), or a run of `alitok train-features`',
      ),
    )
    .option('--vgg16 <file>', "for LPIPS: torchvision's vgg16-397923af.pth")
    .option('--lpips <file>', "for LPIPS: the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth")
    .addOption(resultFile())
    .addOption(listOption())
    .addOption(maxPixelsOption())
    .addHelpText(
      'after',
      examples([
        ['alitok eval reconstruction -t runs/tokenizer -d cifar10/test', 'without a feature network'],
        [
          'alitok launch -p 8 -- eval reconstruction -t AliTok.pth -d imagenet/val --features classify_image_graph_def.pb',
          'on all GPUs of a machine, with the same results',
        ],
      ]),
    )
    .action(action(reconstruction));
  const samples = command
    .command('generation')
    .description('gFID, sFID, Inception Score, precision, recall and KID of samples')
    .requiredOption(
      '--samples <path>',
      '.npz with arr_0 (N, S, S, 3) uint8, a folder or a .tar of images; with --generator, the folder for the samples',
    )
    .requiredOption(
      '--reference <path>',
      'images in the same forms, or an .npz with mu, sigma, mu_s, sigma_s from `alitok stats` or ADM',
    );
  requireWithAdvice(
    samples,
    featuresOption(
      'feature network: Inception (.pth or .pb), or a run of `alitok train-features` on the data',
    ),
    WHICH_FEATURES,
  )
    .addOption(resultFile())
    .addOption(sizeOption('--samples'))
    .addOption(maxPixelsOption())
    .addOption(generatorOption('sample first, with this generator'))
    .addOption(tokenizerOption('its tokenizer'))
    .addOption(loraOption())
    .addOption(countOption(`images to sample (default: ${PUBLISHED_COUNT})`));
  withSampling(samples)
    .addHelpText(
      'after',
      examples([
        [
          'alitok eval generation --samples out/samples.npz --reference cifar10/train --features runs/features',
          'samples against the training images',
        ],
        [
          'alitok eval generation -g alitok_b.bin -t AliTok.pth --samples eval --reference VIRTUAL_imagenet256_labeled.npz --features classify_image_graph_def.pb -o result.json',
          'the published evaluation, from weights to numbers; the same command continues after an interruption',
        ],
      ]),
    )
    .action(action(generation));
}
