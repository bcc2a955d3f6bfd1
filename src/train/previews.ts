import * as tf from '@tensorflow/tfjs';
import type { Config } from '../config/schema.js';
import { splitImages } from '../data/images/split.js';
import { labelledGrid, pairSheet } from '../data/sheets.js';
import { psnr } from '../eval/metrics/psnr.js';
import type { Generator } from '../models/generator/generator.js';
import { toPixels, toTensor } from '../models/pixels.js';
import { CodebookUsage } from '../models/tokenizer/codebook-usage.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { Random } from '../random.js';
import { sampleCodes, sampleOptions } from '../sample/sampler.js';
import type { Preview } from './loop.js';

/** How many pairs the sheet of a training run shows, and how many images are reconstructed at once. */
const SHOWN = 24;
const BATCH = 32;

/** Reconstructs images (uint8, count·S·S·3): their mean PSNR as metric `name`, a sheet of the first, and their codes. */
export function reconstructionPreview(tokenizer: Tokenizer, images: Uint8Array, name: string): Preview {
  const size = tokenizer.geometry.image_size;
  const bytes = size * size * 3;
  const count = images.length / bytes;
  return async () => {
    const reconstructed = new Uint8Array(images.length);
    let sum = 0;
    const usage = new CodebookUsage(tokenizer.geometry.codebook_size);
    for (let start = 0; start < count; start += BATCH) {
      const end = Math.min(start + BATCH, count);
      const batch = images.subarray(start * bytes, end * bytes);
      const pixels = tf.tidy(() => {
        const { image, indices } = tokenizer.forward(toTensor(batch, size));
        usage.add(indices.dataSync<'int32'>());
        return toPixels(image);
      });
      reconstructed.set(pixels, start * bytes);
      const originals = splitImages(batch, size);
      for (const [i, image] of splitImages(pixels, size).entries()) sum += psnr(originals[i], image, 255);
    }
    const shown = Math.min(SHOWN, count) * bytes;
    const sheet = await pairSheet(images.subarray(0, shown), reconstructed.subarray(0, shown), { size });
    return {
      metrics: { [name]: sum / count },
      pictures: { reconstruction: sheet },
      codeCounts: usage.counts,
    };
  };
}

/** Samples one row of images for each of the first classes. */
export function samplePreview(
  generator: Generator,
  tokenizer: Tokenizer,
  classNames: readonly string[],
  sample: Config['sample'],
): Preview {
  const perClass = 4;
  const options = sampleOptions(sample);
  const classes = Array.from({ length: Math.min(generator.geometry.classes, 10) * perClass }, (_, i) =>
    Math.floor(i / perClass),
  );
  return async () => {
    const randoms = classes.map((_, i) => Random.of(sample.seed, `image ${i}`));
    const codes = await sampleCodes(generator, classes, options, randoms);
    const pixels = tf.tidy(() => toPixels(tokenizer.detokenize(codes)));
    codes.dispose();
    const labels = classes.map((c) => classNames[c] || `class ${c}`);
    const size = tokenizer.geometry.image_size;
    const grid = await labelledGrid(pixels, { size, columns: 2 * perClass, labels });
    return { metrics: {}, pictures: { samples: grid } };
  };
}
