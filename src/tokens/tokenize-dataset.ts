import { basename, dirname } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer.js';
import { datasetIdentity, openDataset, reportFound } from '../data/dataset.js';
import type { ImageSet } from '../data/image-set.js';
import { CROP_COUNTS, sequentialBatches } from '../data/sequential.js';
import { ALONE } from '../engine/distributed/group.js';
import { DataError, Interrupted } from '../errors.js';
import { removeTemporaries } from '../files/atomic.js';
import { refuseForeign } from '../files/mark.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';
import { runRounds } from '../job/rounds.js';
import { toTensor } from '../models/pixels.js';
import { CodebookUsage } from '../models/tokenizer/codebook-usage.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { type TokenCacheDescription, TokenCacheWriter } from './cache.js';
import { TokenRows } from './rows.js';

export interface TokenizeOptions {
  tokenizer: string;
  folder: string;
  list?: string;
  /** Maximum number of pixels of an image. */
  maxPixels?: number;
  /** Accepts class folders without images; they keep their class numbers. */
  allowEmptyClasses?: boolean;
  /** The token cache to write. */
  out: string;
  crops: 'ten-crop' | 'flip';
  /** Crops encoded at once. */
  batchSize: number;
}

/** The number of images that were tokenized, and how they use the codebook. */
interface Tokenized {
  images: number;
  usage: CodebookUsage;
}

/**
 * Writes the token cache of a data set (AliTok, arXiv 2506.05289). Until it is complete, codes are kept in `OUT.partial`,
 * from which the same call resumes after an interruption. Several processes share the images, and rank 0 writes; the
 * others return an empty usage.
 * @throws OutputError if `out` is a file that was not written by alitok, before any work is done
 */
export async function tokenizeDataset(options: TokenizeOptions, job: Job): Promise<Tokenized> {
  await refuseForeign(options.out);
  return job.interruptible((signal) => tokenizeUntil(signal, options, job));
}

async function tokenizeUntil(
  signal: AbortSignal,
  { tokenizer: path, folder, list, maxPixels, allowEmptyClasses, out, crops, batchSize }: TokenizeOptions,
  job: Job,
): Promise<Tokenized> {
  const { engine, reporter, group = ALONE } = job;
  const dataset = await openDataset({ folder, list, maxPixels, refuseEmptyClasses: !allowEmptyClasses });
  reportFound(dataset, job);
  const tokenizer = await loadTokenizer(path, reporter.warn);
  const { image_size, tokens, codebook_size } = tokenizer.geometry;
  const description: TokenCacheDescription = {
    fingerprint: await fingerprint(tokenizer),
    codebookSize: codebook_size,
    preprocessing: crops,
    imageSize: image_size,
    source: basename(folder),
    images: dataset.size,
    crops: CROP_COUNTS[crops],
    tokens,
    classNames: dataset.classNames,
  };
  const filesAtOnce = Math.max(1, Math.floor(batchSize / CROP_COUNTS[crops]));
  const { classNames: _, ...own } = description;
  const partial = `${out}.partial`;
  const made = {
    ...own,
    dataset: datasetIdentity(dataset),
    max_pixels: dataset.maxPixels,
    batch_size: batchSize,
    engine: engine.description,
  };
  const sizes = {
    codes: CROP_COUNTS[crops] * tokens,
    codebookSize: codebook_size,
    batch: filesAtOnce,
    total: dataset.size,
  };
  const rows = group.rank === 0 ? await TokenRows.open(partial, made, sizes) : undefined;
  if (rows && rows.count > 0)
    reporter.info(`resuming after ${rows.count} images of an interrupted run in ${partial}`);
  try {
    const at = (await group.broadcastObject(rows && { images: rows.count, next: await rows.next(signal) }))!;
    const batches = sequentialBatches({
      dataset,
      imageSize: image_size,
      batchSize: filesAtOnce,
      crops,
      start: at.next,
      share: group,
      ...imageWarnings(reporter),
    });
    const images = await runRounds(
      batches,
      {
        progress: { label: 'tokenize', total: dataset.size, unit: 'images', start: at.images },
        compute: ({ images, indices }) => ({ indices, codes: encode(tokenizer, images) }),
        count: ({ indices }) => indices.length,
        take: ({ indices, codes }) => rows!.append(indices, codes),
        stop: {
          signal,
          error: (done) =>
            new Interrupted(
              `stopped after ${done} images, whose codes are kept in ${partial}; run the same command again to resume`,
            ),
        },
      },
      job,
    );
    if (!rows) return { images, usage: new CodebookUsage(codebook_size) };
    const usage = await writeCache(out, description, dataset, rows, signal);
    await rows.remove();
    return { images, usage };
  } catch (error) {
    // Unreadable files will be repaired, and must then be read again.
    if (error instanceof DataError) await rows?.remove();
    throw error;
  } finally {
    await rows?.close();
    tokenizer.parameters.dispose();
  }
}

/** Encodes crops, uint8 (n, S, S, 3), into codes (n, T); n may be 0. */
function encode(tokenizer: Tokenizer, crops: Uint8Array): Int32Array {
  if (crops.length === 0) return new Int32Array();
  return tf.tidy(() =>
    tokenizer.tokenize(toTensor(crops, tokenizer.geometry.image_size)).dataSync<'int32'>(),
  );
}

/** Writes the cache from all rows; returns how they use the codebook. Throws OutputError. */
async function writeCache(
  out: string,
  description: TokenCacheDescription,
  { classes }: ImageSet,
  rows: TokenRows,
  signal: AbortSignal,
): Promise<CodebookUsage> {
  await removeTemporaries(dirname(out), [basename(out)]);
  const usage = new CodebookUsage(description.codebookSize);
  const writer = await TokenCacheWriter.create(out, description);
  try {
    for await (const { index, codes } of rows.read(signal)) {
      usage.add(codes);
      await writer.append(codes, classes[index]);
    }
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
  return usage;
}
