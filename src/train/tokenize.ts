import * as tf from '@tensorflow/tfjs';
import type { Batch } from '../data/loader.js';
import { Interrupted } from '../errors.js';
import { turn } from '../job/turn.js';
import { toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer.js';
import type { TokenRows } from './token-rows.js';

/**
 * Turns a data set into codes (AliTok, arXiv 2506.05289): every batch's crops are encoded at once and kept in `rows`.
 * @throws Interrupted, with all batches kept that were encoded
 */
export async function tokenizeBatches(
  tokenizer: Tokenizer,
  batches: AsyncIterable<Batch>,
  rows: TokenRows,
  { onImages, signal }: { onImages: (done: number) => void; signal: AbortSignal },
): Promise<void> {
  const { image_size } = tokenizer.geometry;
  for await (const { images, indices } of batches) {
    if (signal.aborted)
      throw new Interrupted(
        `stopped after ${rows.count} images, whose codes are in ${rows.folder}; the same command goes on`,
      );
    const codes = tf.tidy(() => tokenizer.tokenize(toTensor(images, image_size)).dataSync<'int32'>());
    await rows.append(indices, codes);
    onImages(rows.count);
    await turn();
  }
}
