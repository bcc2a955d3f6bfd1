import * as tf from '@tensorflow/tfjs';
import type { Batch } from '../data/loader.js';
import type { TokenCacheWriter } from '../data/token-cache.js';
import { Interrupted } from '../errors.js';
import { turn } from '../job/turn.js';
import { CodebookUsage } from '../models/codebook-usage.js';
import { toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer.js';

/**
 * Turns a data set into codes (AliTok, arXiv 2506.05289): every batch's crops are encoded at once.
 * Gives how much of the codebook they use. On an error or interruption the unfinished cache is removed.
 */
export async function tokenizeBatches(
  tokenizer: Tokenizer,
  batches: AsyncIterable<Batch>,
  writer: TokenCacheWriter,
  { onImages, signal }: { onImages: (done: number) => void; signal: AbortSignal },
): Promise<CodebookUsage> {
  const { image_size, codebook_size } = tokenizer.geometry;
  const usage = new CodebookUsage(codebook_size);
  let done = 0;
  try {
    for await (const { images, classes } of batches) {
      if (signal.aborted) throw new Interrupted('stopped; no token cache was written');
      const codes = tf.tidy(() => tokenizer.tokenize(toTensor(images, image_size)).dataSync<'int32'>());
      usage.add(codes);
      const perImage = codes.length / classes.length;
      for (const [i, classIndex] of classes.entries())
        await writer.append(codes.subarray(i * perImage, (i + 1) * perImage), classIndex);
      done += classes.length;
      onImages(done);
      await turn();
    }
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
  return usage;
}
