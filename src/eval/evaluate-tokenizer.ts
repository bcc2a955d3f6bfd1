import * as tf from '@tensorflow/tfjs';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer.js';
import type { Job } from '../job/job.js';
import { type Arrays, runRounds } from '../job/rounds.js';
import { toPixels, toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { modelChecksum } from '../run/layout.js';
import { describeExtractor, openFeatureExtractor } from './feature-extractor.js';
import { openImages } from './image-batches.js';
import { RECONSTRUCTION_METRICS, type ReconstructionValues } from './metrics/index.js';
import type { FeatureExtractor, ReconstructionMeasurement, Reconstructions } from './metrics/metric.js';

const BATCH = 32;

export interface EvaluateTokenizerOptions {
  tokenizer: string;
  /** Images to reconstruct: a folder, or an `.npz` with arr_0. */
  folder: string;
  list?: string;
  /** Maximum number of pixels of an image in a folder. */
  maxPixels?: number;
  /** The file or run of a feature network, for rFID. */
  features?: string;
  /** Weight files of VGG-16 and of LPIPS, for LPIPS. */
  lpips?: { vgg16: string; lpips: string };
}

/** The reconstruction metrics, and what defines them. */
export interface ReconstructionResult extends ReconstructionValues {
  images: number;
  image_size: number;
  /** Fingerprint of encoder and codebook. */
  tokenizer: string;
  /** SHA-256 of the tokenizer's file. */
  tokenizer_sha256: string;
  features?: string;
  features_sha256?: string;
  preprocessing?: string;
}

/** Runs a batch of images, uint8 (n, S, S, 3), through the tokenizer; n may be 0. */
function reconstruct(tokenizer: Tokenizer, originals: Uint8Array): Reconstructions {
  const result: Reconstructions = { originals, reconstructions: new Uint8Array(), codes: new Int32Array() };
  if (originals.length === 0) return result;
  tf.tidy(() => {
    const { image, indices } = tokenizer.forward(toTensor(originals, tokenizer.geometry.image_size));
    result.reconstructions = toPixels(image);
    result.codes = indices.dataSync<'int32'>();
  });
  return result;
}

type Measurements = ReadonlyMap<string, ReconstructionMeasurement<object>>;

/** Measures a batch by all metrics; the arrays of a metric get its name as a prefix: `PSNR.values`. */
function measure(measurements: Measurements, batch: Reconstructions): Arrays {
  const all: Arrays = {};
  for (const [name, measurement] of measurements)
    for (const [key, array] of Object.entries(measurement.measure(batch))) all[`${name}.${key}`] = array;
  return all;
}

/** The arrays of one metric from what `measure` gave. */
function arraysOf(name: string, all: Arrays): Arrays {
  const own = Object.entries(all).filter(([key]) => key.startsWith(`${name}.`));
  return Object.fromEntries(own.map(([key, array]) => [key.slice(name.length + 1), array]));
}

/**
 * The reconstruction metrics of a tokenizer over images, those of a folder centre-cropped; LPIPS and rFID if their
 * networks are given. Several processes share the images; rank 0 returns the result, which is the same as that of one
 * process, and the others return nothing. Throws DataError for the images, CheckpointError for the files of tokenizer and
 * networks.
 */
export async function evaluateTokenizer(
  options: EvaluateTokenizerOptions,
  job: Pick<Job, 'reporter' | 'group'>,
): Promise<ReconstructionResult | undefined> {
  const { folder, list, maxPixels, features, lpips } = options;
  const { reporter, group } = job;
  const tokenizer = await loadTokenizer(options.tokenizer, reporter.warn);
  const { image_size: size, codebook_size: codebookSize } = tokenizer.geometry;
  const measurements = new Map<string, ReconstructionMeasurement<object>>();
  let extractor: FeatureExtractor | undefined;
  try {
    const source = await openImages(folder, { size, list, maxPixels, batch: BATCH, job });
    extractor = features === undefined ? undefined : await openFeatureExtractor(features);
    const setup = { imageSize: size, codebookSize, tokenizer: options.tokenizer, reporter, extractor, lpips };
    for (const { name, needs, start } of RECONSTRUCTION_METRICS)
      if (needs === undefined || options[needs] !== undefined) measurements.set(name, await start(setup));

    const images = await runRounds<Uint8Array, Arrays>(
      source.batches(group),
      {
        progress: { label: 'reconstruct', total: source.count, unit: 'images' },
        compute: (pixels) => ({
          count: Uint32Array.of(pixels.length / (size * size * 3)),
          ...measure(measurements, reconstruct(tokenizer, pixels)),
        }),
        count: ({ count }) => count[0],
        take(measured) {
          for (const [name, measurement] of measurements) measurement.add(arraysOf(name, measured));
        },
      },
      job,
    );
    if (group && group.rank > 0) return undefined;
    const values = {};
    for (const measurement of measurements.values()) Object.assign(values, await measurement.result(images));
    return {
      ...(values as ReconstructionValues),
      ...(extractor && describeExtractor(extractor, features!)),
      images,
      image_size: size,
      tokenizer: await fingerprint(tokenizer),
      tokenizer_sha256: await modelChecksum(options.tokenizer),
    };
  } finally {
    for (const measurement of measurements.values()) measurement.dispose?.();
    extractor?.dispose();
    tokenizer.parameters.dispose();
  }
}
