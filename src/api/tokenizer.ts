import * as tf from '@tensorflow/tfjs';
import { loadTokenizer } from '../checkpoint/tokenizer.js';
import type { Image } from '../data/images/decode.js';
import { ConfigError } from '../errors.js';
import type { Stage } from '../models/geometry.js';
import { toPixels, toTensor } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { join, split } from './images.js';

/** A loaded tokenizer: images to codes and back. */
export interface ImageTokenizer {
  /** Side of its images, in pixels. */
  readonly imageSize: number;
  /** T, the number of codes of an image: g + 1 or g prefix codes, then g² codes in the order of the patches. */
  readonly tokens: number;
  /** N: codes are 0 to N − 1. */
  readonly codebookSize: number;
  /** 1 for the causal decoder, 2 for the bidirectional one, which is used for final images. */
  readonly stage: Stage;
  /** @internal */
  readonly model: Tokenizer;
  /** The T codes of each image, computed in one batch. @throws ConfigError for an image of another size */
  encode(images: readonly Image[]): Int32Array[];
  /** The image of each row of T codes. @throws ConfigError for another number of codes, or codes outside 0 to N − 1 */
  decode(codes: readonly Int32Array[]): Image[];
  /** Frees its memory. */
  dispose(): void;
}

/** The codes of several images as one array. @throws ConfigError for codes that the tokenizer does not have */
function rowsOf(codes: readonly Int32Array[], tokens: number, codebookSize: number): Int32Array {
  const all = new Int32Array(codes.length * tokens);
  codes.forEach((row, i) => {
    const wrong = row.find((code) => code < 0 || code >= codebookSize);
    if (row.length !== tokens || wrong !== undefined)
      throw new ConfigError(
        `codes of image ${i}: ${wrong === undefined ? `${row.length} of them` : `${wrong} is among them`}; an image has ${tokens} codes from 0 to ${codebookSize - 1}`,
      );
    all.set(row, i * tokens);
  });
  return all;
}

/**
 * Loads a tokenizer: a published `.pth`, a `.safetensors` file, or a run of `alitok train-tokenizer`.
 * For a training file with several sets of weights, `FILE#KEY` selects the set under a key. Call `openEngine` first.
 * @throws CheckpointError if the file is missing, damaged or of another kind
 */
export async function openTokenizer(path: string): Promise<ImageTokenizer> {
  const model = await loadTokenizer(path, (message) => process.emitWarning(message));
  const { image_size: imageSize, tokens, codebook_size: codebookSize } = model.geometry;
  return {
    imageSize,
    tokens,
    codebookSize,
    stage: model.stage,
    model,
    encode(images) {
      const pixels = join(images, imageSize);
      if (images.length === 0) return [];
      const codes = tf.tidy(() => model.tokenize(toTensor(pixels, imageSize)).dataSync<'int32'>());
      return images.map((_, i) => codes.slice(i * tokens, (i + 1) * tokens));
    },
    decode(codes) {
      const all = rowsOf(codes, tokens, codebookSize);
      if (codes.length === 0) return [];
      const pixels = tf.tidy(() =>
        toPixels(model.detokenize(tf.tensor2d(all, [codes.length, tokens], 'int32'))),
      );
      return split(pixels, imageSize);
    },
    dispose: () => model.parameters.dispose(),
  };
}
