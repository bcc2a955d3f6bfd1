import * as tf from '@tensorflow/tfjs';
import type { Batch } from '../data/loader.js';
import { gatherArrays } from '../engine/distributed/gather-arrays.js';
import { ALONE, type Group } from '../engine/distributed/group.js';
import { Interrupted } from '../errors.js';
import { turn } from '../job/turn.js';
import { toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { TokenRows } from './rows.js';

/**
 * Turns a data set into codes (AliTok, arXiv 2506.05289): every batch's crops are encoded at once and kept in `rows`.
 * Processes of a group each encode their own batches, and rank 0, which alone has rows, keeps those of all in turn.
 * Gives the number of images.
 * @throws Interrupted, with all batches kept that were encoded
 */
export async function tokenizeBatches(
  tokenizer: Tokenizer,
  batches: AsyncIterable<Batch>,
  rows: TokenRows | undefined,
  {
    onImages,
    signal,
    start,
    folder,
    group = ALONE,
  }: {
    onImages: (done: number) => void;
    signal: AbortSignal;
    /** Images that are done already, and the folder that holds them. */
    start: number;
    folder: string;
    group?: Group;
  },
): Promise<number> {
  const { image_size } = tokenizer.geometry;
  let done = start;
  for await (const { images, indices } of batches) {
    if (await group.any(signal.aborted))
      throw new Interrupted(
        `stopped after ${done} images, whose codes are in ${folder}; the same command goes on`,
      );
    const codes =
      indices.length > 0
        ? tf.tidy(() => tokenizer.tokenize(toTensor(images, image_size)).dataSync<'int32'>())
        : new Int32Array();
    for (const part of await gatherArrays(group, { indices, codes })) {
      if (part.indices.length > 0) await rows?.append(part.indices, part.codes);
      done += part.indices.length;
    }
    onImages(done);
    await turn();
  }
  return done;
}
