import * as tf from '@tensorflow/tfjs';
import type { Batch } from '../data/loader.js';
import { ALONE, type Group } from '../engine/distributed/group.js';
import { Interrupted } from '../errors.js';
import { turn } from '../job/turn.js';
import { toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer.js';
import type { TokenRows } from './token-rows.js';

/** Entries of the data set and the codes of all their crops. */
interface Coded {
  indices: Uint32Array;
  codes: Int32Array;
}

/** What every process has coded, by rank: each sends how many entries, the entries and the codes. */
async function gatherCodes(group: Group, { indices, codes }: Coded): Promise<Coded[]> {
  const numbers = new Int32Array(1 + indices.length + codes.length);
  numbers[0] = indices.length;
  numbers.set(indices, 1);
  numbers.set(codes, 1 + indices.length);
  const gathered = await group.gather(new Uint8Array(numbers.buffer));
  return gathered.map((bytes) => {
    const all = new Int32Array(bytes.slice().buffer); // aligned
    return { indices: Uint32Array.from(all.subarray(1, 1 + all[0])), codes: all.subarray(1 + all[0]) };
  });
}

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
    const parts = group.size > 1 ? await gatherCodes(group, { indices, codes }) : [{ indices, codes }];
    for (const part of parts) {
      if (part.indices.length > 0) await rows?.append(part.indices, part.codes);
      done += part.indices.length;
    }
    onImages(done);
    await turn();
  }
  return done;
}
