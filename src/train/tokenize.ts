import * as tf from '@tensorflow/tfjs';
import type { TokenCacheWriter } from '../data/token-cache.js';
import { Interrupted } from '../errors.js';
import { CodebookUsage } from '../eval/codebook-usage.js';
import type { Tokenizer } from '../models/tokenizer.js';
import { toTensor } from '../models/pixels.js';

/** One image's crops, uint8 (crops, S, S, 3) in one array, and its class. */
export interface CroppedImage {
  crops: Uint8Array;
  class: number;
}

/**
 * Turns a data set into codes (spec: Tokenizing a data set). Crops of several images share a batch of about
 * `batchSize`. Gives how much of the codebook they use. On an error or interruption the unfinished cache is removed.
 */
export async function tokenizeDataset(
  tokenizer: Tokenizer,
  images: AsyncIterable<CroppedImage>,
  writer: TokenCacheWriter,
  { batchSize, onImages, signal }: { batchSize: number; onImages: (done: number) => void; signal: AbortSignal },
): Promise<CodebookUsage> {
  const { image_size, tokens, codebook_size } = tokenizer.geometry;
  const usage = new CodebookUsage(codebook_size);
  let pending: CroppedImage[] = [];
  let done = 0;
  const flush = async () => {
    if (pending.length === 0) return;
    const pixels = Buffer.concat(pending.map((image) => image.crops));
    const codes = tf.tidy(() => tokenizer.tokenize(toTensor(pixels, image_size)).dataSync<'int32'>());
    usage.add(codes);
    const perImage = (codes.length / tokens / pending.length) * tokens;
    for (const [i, image] of pending.entries())
      await writer.append(codes.subarray(i * perImage, (i + 1) * perImage), image.class);
    done += pending.length;
    onImages(done);
    pending = [];
  };
  try {
    for await (const image of images) {
      if (signal.aborted) throw new Interrupted('stopped; no token cache was written');
      pending.push(image);
      const crops = image.crops.length / (image_size * image_size * 3);
      if (pending.length * crops >= batchSize) await flush();
    }
    await flush();
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
  return usage;
}
