import * as tf from '@tensorflow/tfjs';
import { loadLPIPS } from '../checkpoint/networks.js';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer.js';
import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import { ALONE } from '../engine/distributed/group.js';
import { inFloat32 } from '../engine/ops/precision.js';
import { DataError } from '../errors.js';
import { fileChecksum } from '../files/bytes.js';
import type { Job } from '../job/job.js';
import { turn } from '../job/turn.js';
import { type LPIPS, LPIPS_SMALLEST } from '../models/judges/lpips.js';
import { toPixels, toTensor } from '../models/pixels.js';
import { CodebookUsage } from '../models/tokenizer/codebook-usage.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { modelChecksum } from '../run/layout.js';
import { featuresOf, warnOfFew } from './evaluate-samples.js';
import { type FeatureExtractor, openFeatureExtractor } from './feature-extractor.js';
import { openImages } from './image-batches.js';
import { frechetDistance } from './metrics/frechet.js';
import { psnr } from './metrics/psnr.js';
import { ssim } from './metrics/ssim.js';
import { FeatureStatistics } from './metrics/statistics.js';

const BATCH = 32;
const LPIPS_BATCH = 4;
const PEAK = 255;

export interface EvaluateTokenizerOptions {
  tokenizer: string;
  /** Images to reconstruct: a folder, or an `.npz` with arr_0. */
  folder: string;
  list?: string;
  /** Pixels that an image of a folder may have at most. */
  maxPixels?: number;
  /** A feature network, for rFID. */
  features?: string;
  /** Files of VGG-16 and of LPIPS's weights, for LPIPS. */
  lpips?: { vgg16: string; lpips: string };
}

/** The reconstruction metrics, and what defines them. */
export interface ReconstructionResult {
  /** dB, the mean over images of 8-bit reconstructions */
  psnr: number;
  ssim: number;
  /** The mean over images of 8-bit reconstructions. */
  lpips?: number;
  lpips_sha256?: { vgg16: string; lpips: string };
  /** Share of the codebook that the images use. */
  codebook_usage: number;
  /** bits */
  codebook_entropy: number;
  rfid?: number;
  images: number;
  image_size: number;
  /** Fingerprint of encoder and codebook. */
  tokenizer: string;
  /** Of the tokenizer's file. */
  tokenizer_sha256: string;
  features?: string;
  features_sha256?: string;
  preprocessing?: string;
}

/** One batch through the tokenizer: its 8-bit reconstructions and its codes. */
function throughTokenizer(
  tokenizer: Tokenizer,
  pixels: Uint8Array,
): { pixels: Uint8Array; codes: Int32Array } {
  let result: { pixels: Uint8Array; codes: Int32Array } | undefined;
  tf.tidy(() => {
    const { image, indices } = tokenizer.forward(toTensor(pixels, tokenizer.geometry.image_size));
    result = { pixels: toPixels(image), codes: indices.dataSync<'int32'>() };
  });
  return result!;
}

/** Sum of the LPIPS of images and their reconstructions, a few at a time: VGG-16 takes 100 MB for one of 256 px. */
function lpipsSum(network: LPIPS, originals: Uint8Array, reconstructions: Uint8Array, size: number): number {
  const part = LPIPS_BATCH * size * size * 3;
  let sum = 0;
  for (let start = 0; start < originals.length; start += part)
    sum += tf.tidy(() => {
      const [x, y] = [originals, reconstructions].map((all) =>
        toTensor(all.subarray(start, start + part), size),
      );
      return inFloat32(() => network.distances(x, y).sum().dataSync()[0]);
    });
  return sum;
}

/** What is measured of a batch; absent networks give empty arrays. */
type Measured = {
  /** Of each image. */
  psnr: Float64Array;
  ssim: Float64Array;
  /** The batch's sum. */
  lpips: Float64Array;
  codes: Int32Array;
  /** Features (n, D) of the images, and of their reconstructions. */
  originals: Float32Array;
  reconstructions: Float32Array;
};

const NOTHING: Measured = {
  psnr: new Float64Array(),
  ssim: new Float64Array(),
  lpips: new Float64Array(),
  codes: new Int32Array(),
  originals: new Float32Array(),
  reconstructions: new Float32Array(),
};

/** Reconstructs images (n, S, S, 3) and compares. */
function measureBatch(
  pixels: Uint8Array,
  tokenizer: Tokenizer,
  { extractor, lpips }: { extractor?: FeatureExtractor; lpips?: LPIPS },
): Measured {
  const size = tokenizer.geometry.image_size;
  const bytes = size * size * 3;
  const out = throughTokenizer(tokenizer, pixels);
  const pairs = Array.from({ length: pixels.length / bytes }, (_, i) =>
    [pixels, out.pixels].map((all) => all.subarray(i * bytes, (i + 1) * bytes)),
  );
  return {
    ...NOTHING,
    psnr: Float64Array.from(pairs, ([x, y]) => psnr(x, y, PEAK)),
    ssim: Float64Array.from(pairs, ([x, y]) => ssim(x, y, size, size, PEAK)),
    codes: out.codes,
    ...(lpips && { lpips: Float64Array.of(lpipsSum(lpips, pixels, out.pixels, size)) }),
    ...(extractor && {
      originals: extractor.extract(pixels, size).pool,
      reconstructions: extractor.extract(out.pixels, size).pool,
    }),
  };
}

const total = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0);

/**
 * PSNR, SSIM, codebook use and, with their networks, LPIPS and rFID over images, those of a folder centre-cropped.
 * Several processes share the images; rank 0 gives the result, the same as that of one process, and the others give
 * nothing. Throws DataError for the images, CheckpointError for the files of tokenizer and networks.
 */
export async function evaluateTokenizer(
  options: EvaluateTokenizerOptions,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<ReconstructionResult | undefined> {
  const { reporter, group = ALONE } = job;
  const tokenizer = await loadTokenizer(options.tokenizer, reporter.warn);
  const { image_size: size, codebook_size } = tokenizer.geometry;
  if (options.lpips && size < LPIPS_SMALLEST) {
    tokenizer.parameters.dispose();
    throw new DataError(
      `LPIPS needs images of ${LPIPS_SMALLEST} px at least, but those of ${options.tokenizer} are ${size} px; leave its files out`,
    );
  }
  const { folder, list, maxPixels } = options;
  const source = await openImages(folder, { size, list, maxPixels, batch: BATCH, job });
  const extractor = options.features === undefined ? undefined : await openFeatureExtractor(options.features);
  const lpips = options.lpips && (await loadLPIPS(options.lpips));
  const usage = new CodebookUsage(codebook_size);
  const [originals, reconstructions] = [0, 1].map(
    () => new FeatureStatistics(extractor?.dimensions.pool ?? 0),
  );
  const progress = reporter.progress({ label: 'reconstruct', total: source.count, unit: 'images' });
  let [images, psnrSum, ssimSum, distanceSum] = [0, 0, 0, 0];
  try {
    for await (const pixels of source.batches(group)) {
      const own = pixels.length > 0 ? measureBatch(pixels, tokenizer, { extractor, lpips }) : NOTHING;
      for (const part of await gatherArrays(group, own)) {
        images += part.psnr.length;
        if (group.rank > 0 || part.psnr.length === 0) continue;
        usage.add(part.codes);
        psnrSum += total(part.psnr);
        ssimSum += total(part.ssim);
        distanceSum += total(part.lpips);
        if (extractor) {
          originals.add(part.originals);
          reconstructions.add(part.reconstructions);
        }
      }
      progress.update(images);
      await turn();
    }
    if (group.rank > 0) return undefined;
    if (extractor) warnOfFew('images', images, extractor.dimensions.pool, reporter);
    return {
      psnr: psnrSum / images,
      ssim: ssimSum / images,
      ...(options.lpips && {
        lpips: distanceSum / images,
        lpips_sha256: {
          vgg16: await fileChecksum(options.lpips.vgg16),
          lpips: await fileChecksum(options.lpips.lpips),
        },
      }),
      codebook_usage: usage.used,
      codebook_entropy: usage.entropy,
      ...(extractor && {
        rfid: frechetDistance(originals.gaussian, reconstructions.gaussian),
        ...featuresOf(extractor, options.features!),
      }),
      images,
      image_size: size,
      tokenizer: await fingerprint(tokenizer),
      tokenizer_sha256: await modelChecksum(options.tokenizer),
    };
  } finally {
    progress.stop();
    extractor?.dispose();
    lpips?.dispose();
    tokenizer.parameters.dispose();
  }
}
