import { basename, dirname } from 'node:path';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer.js';
import { datasetIdentity, openDataset } from '../data/dataset.js';
import { reportFound } from '../data/found.js';
import type { ImageSet } from '../data/image-set.js';
import { CROP_COUNTS, sequentialBatches } from '../data/loader.js';
import { ALONE } from '../engine/distributed/group.js';
import { DataError } from '../errors.js';
import { removeTemporaries } from '../files/atomic.js';
import { refuseForeign } from '../files/mark.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';
import { CodebookUsage } from '../models/tokenizer/codebook-usage.js';
import { type TokenCacheDescription, TokenCacheWriter } from './cache.js';
import { TokenRows } from './rows.js';
import { tokenizeBatches } from './tokenize.js';

export interface TokenizeOptions {
  tokenizer: string;
  folder: string;
  list?: string;
  /** Pixels that an image may have at most. */
  maxPixels?: number;
  /** Takes class folders without an image too; their numbers stay. */
  allowEmptyClasses?: boolean;
  /** The token cache to write. */
  out: string;
  crops: 'ten-crop' | 'flip';
  /** Crops encoded at once. */
  batchSize: number;
}

/** Images that were tokenized, and how they use the codebook. */
interface Tokenized {
  images: number;
  usage: CodebookUsage;
}

/**
 * Writes the token cache of a data set; gives its number of images and how much of the codebook it uses. Codes are kept
 * beside it until it is whole, and the same call goes on with them after an interruption. Several processes share the
 * images, and rank 0 writes; the others give an empty usage.
 * @throws OutputError where `out` is a file that was not written by alitok, before anything is done
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
  const start = rows?.count ?? 0;
  if (start > 0) reporter.info(`goes on after ${start} images of an interrupted run in ${partial}`);
  const total = dataset.size;
  const progress = reporter.progress({ label: 'tokenize', total, unit: 'images', start });
  try {
    const at = await group.broadcastObject(rows && { images: rows.count, next: await rows.next(signal) });
    const batches = sequentialBatches({
      dataset,
      imageSize: image_size,
      batchSize: filesAtOnce,
      crops,
      start: at!.next,
      share: group,
      ...imageWarnings(reporter),
    });
    const onImages = (done: number) => progress.update(done);
    const kept = { start: at!.images, folder: partial };
    const images = await tokenizeBatches(tokenizer, batches, rows, { onImages, signal, group, ...kept });
    if (!rows) return { images, usage: new CodebookUsage(codebook_size) };
    const usage = await writeCache(out, description, dataset, rows, signal);
    await rows.remove();
    return { images, usage };
  } catch (error) {
    // Files that could not be read will be repaired: then they are to be read again.
    if (error instanceof DataError) await rows?.remove();
    throw error;
  } finally {
    await rows?.close();
    progress.stop();
    tokenizer.parameters.dispose();
  }
}

/** Makes the cache of all rows; gives how much of the codebook they use. Throws OutputError. */
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
