import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { loadTokenizer } from '../checkpoint/tokenizer.js';
import { openDataset, reportFound } from '../data/dataset.js';
import { readEvenly } from '../data/sequential.js';
import { pairSheet } from '../data/sheets.js';
import { makeFolder, writeFileAtomic } from '../files/atomic.js';
import { refuseForeign } from '../files/mark.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';
import { toPixels, toTensor } from '../models/pixels.js';

const BATCH = 16;

export interface ReconstructOptions {
  tokenizer: string;
  folder: string;
  list?: string;
  /** Maximum number of pixels of an image. */
  maxPixels?: number;
  /** Number of images, evenly spaced in the data set. */
  count: number;
  /** The folder for `pairs.png`. */
  out: string;
}

/** Writes a sheet of original | reconstruction pairs; returns its path and the number of pairs. */
export async function reconstruct(
  options: ReconstructOptions,
  job: Job,
): Promise<{ path: string; pairs: number }> {
  const { reporter } = job;
  const path = join(options.out, 'pairs.png');
  await refuseForeign(path);
  const dataset = await openDataset(options);
  reportFound(dataset, job);
  const tokenizer = await loadTokenizer(options.tokenizer, reporter.warn);
  const size = tokenizer.geometry.image_size;
  const bytes = size * size * 3;
  const { images, classes } = await readEvenly(dataset, size, options.count, imageWarnings(reporter));
  await makeFolder(options.out);
  const progress = reporter.progress({ label: 'reconstruct', total: classes.length, unit: 'images' });
  const parts: Uint8Array[] = [];
  for (let start = 0; start < classes.length; start += BATCH) {
    const batch = images.subarray(start * bytes, (start + BATCH) * bytes);
    parts.push(tf.tidy(() => toPixels(tokenizer.forward(toTensor(batch, size)).image)));
    progress.update(Math.min(start + BATCH, classes.length));
  }
  progress.stop();
  tokenizer.parameters.dispose();
  const named = dataset.classNames.some((name) => name !== '');
  const labels = named ? Array.from(classes, (c) => dataset.classNames[c]) : undefined;
  await writeFileAtomic(
    path,
    await pairSheet(images, new Uint8Array(Buffer.concat(parts)), { size, labels }),
  );
  return { path, pairs: classes.length };
}
