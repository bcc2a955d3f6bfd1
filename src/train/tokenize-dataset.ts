import { basename } from 'node:path';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer-file.js';
import { openDataset } from '../data/dataset.js';
import { CROP_COUNTS, sequentialBatches } from '../data/loader.js';
import { TokenCacheWriter } from '../data/token-cache.js';
import type { Job } from '../job/job.js';
import { warnOfSkipped } from '../job/reporter.js';
import type { CodebookUsage } from '../models/codebook-usage.js';
import { tokenizeBatches } from './tokenize.js';

export interface TokenizeOptions {
  tokenizer: string;
  folder: string;
  list?: string;
  /** The token cache to write. */
  out: string;
  crops: 'ten-crop' | 'flip';
  /** Crops encoded at once. */
  batchSize: number;
}

/** Writes the token cache of a data set; gives its number of images and how much of the codebook it uses. */
export async function tokenizeDataset(
  { tokenizer: path, folder, list, out, crops, batchSize }: TokenizeOptions,
  { reporter, signal }: Job,
): Promise<{ images: number; usage: CodebookUsage }> {
  const dataset = await openDataset({ folder, list });
  const tokenizer = await loadTokenizer(path);
  const { image_size, tokens, codebook_size } = tokenizer.geometry;
  const writer = await TokenCacheWriter.create(out, {
    fingerprint: await fingerprint(tokenizer),
    codebookSize: codebook_size,
    preprocessing: crops,
    imageSize: image_size,
    source: basename(folder),
    images: dataset.size,
    crops: CROP_COUNTS[crops],
    tokens,
    classNames: dataset.classNames,
  });
  const batches = sequentialBatches({
    dataset,
    imageSize: image_size,
    batchSize: Math.max(1, Math.floor(batchSize / CROP_COUNTS[crops])),
    crops,
    onUnreadable: warnOfSkipped(reporter),
  });
  const progress = reporter.progress({ label: 'tokenize', total: dataset.size, unit: 'images' });
  let images = 0;
  const onImages = (done: number) => {
    images = done;
    progress.update(done);
  };
  try {
    const usage = await tokenizeBatches(tokenizer, batches, writer, { onImages, signal });
    return { images, usage };
  } finally {
    progress.stop();
    tokenizer.parameters.dispose();
  }
}
