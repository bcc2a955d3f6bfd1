import * as tf from '@tensorflow/tfjs';
import type { Config } from '../../config/schema.js';
import { openDataset, reportFound } from '../../data/dataset.js';
import { splitImages } from '../../data/images/split.js';
import { readEvenly } from '../../data/sequential.js';
import { pairSheet } from '../../data/sheets.js';
import { psnr } from '../../eval/metrics/psnr.js';
import type { Job } from '../../job/job.js';
import { imageWarnings } from '../../job/reporter.js';
import { toPixels, toTensor } from '../../models/pixels.js';
import { CodebookUsage } from '../../models/tokenizer/codebook-usage.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import type { Preview } from '../loop.js';

/** Number of pairs in the picture. */
const SHOWN = 24;
const BATCH = 32;

/** Reconstructs images (uint8, count·S·S·3): their mean PSNR as metric `name`, a picture of the first, and code counts. */
function reconstructionPreview(tokenizer: Tokenizer, images: Uint8Array, name: string): Preview {
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

/** Previews on the validation images, or on training images where the config names none. */
export async function openPreview({ data, tokenizer, logging }: Config, job: Job, maxPixels?: number) {
  const { reporter } = job;
  const [folder, list] = data.validation
    ? [data.validation, data.validation_list]
    : [data.train!, data.train_list];
  if (!data.validation) reporter.warn('no validation images are given: the previews show training images');
  const dataset = await openDataset({ folder, list: list ?? undefined, maxPixels });
  if (data.validation) reportFound(dataset, job);
  const { onUnreadable, onSmall } = imageWarnings(reporter);
  // The training loader warns about training images.
  const warnings = data.validation ? { onUnreadable, onSmall } : { onUnreadable };
  const { images } = await readEvenly(dataset, tokenizer.image_size, logging.validation_images, warnings);
  const name = data.validation ? 'validation_psnr' : 'preview_psnr';
  return (model: Tokenizer): Preview => reconstructionPreview(model, images, name);
}
