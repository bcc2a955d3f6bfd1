import * as tf from '@tensorflow/tfjs';
import type { Config } from '../../config/schema.js';
import { labelledGrid } from '../../data/sheets.js';
import type { Generator } from '../../models/generator/generator.js';
import { toPixels } from '../../models/pixels.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { Random } from '../../random.js';
import { classLabels } from '../../sample/classes.js';
import { sampleCodes, sampleOptions } from '../../sample/sampler.js';
import type { Preview } from '../loop.js';

/** Samples one row of images for each of the first classes. */
export function samplePreview(
  generator: Generator,
  tokenizer: Tokenizer,
  names: readonly string[],
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
    const labels = classLabels(classes, { names, count: generator.geometry.classes });
    const size = tokenizer.geometry.image_size;
    const grid = await labelledGrid(pixels, { size, columns: 2 * perClass, labels });
    return { metrics: {}, pictures: { samples: grid } };
  };
}
