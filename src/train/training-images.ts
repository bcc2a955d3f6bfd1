import type { Config } from '../config/schema.js';
import { datasetIdentity, openDataset, reportFound } from '../data/dataset.js';
import { type SmallImages, TrainingLoader } from '../data/loader.js';
import { ConfigError, option } from '../errors.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';
import type { OpenBatches } from './training-batches.js';

/** Which images of a data set to use. */
export interface ImageLimits {
  /** Largest number of pixels of an image. */
  maxPixels?: number;
  /** Accepts class folders without images; they keep their class index. */
  allowEmptyClasses?: boolean;
}

/**
 * The training images of a config: this process's part of each batch. Logs what is found, and warns about bad files.
 * @throws ConfigError where the config names none, DataError where there are no images
 */
export async function openTraining(
  { data, tokenizer, seed }: Config,
  batchSize: number,
  job: Pick<Job, 'reporter' | 'group'>,
  { maxPixels, allowEmptyClasses }: ImageLimits = {},
): Promise<{ openBatches: OpenBatches; classNames: readonly string[]; inputs: Record<string, string> }> {
  if (!data.train)
    throw new ConfigError(`data.train is not set: name the folder of training images with ${option('data')}`);
  const begun = performance.now();
  const dataset = await openDataset({
    folder: data.train,
    list: data.train_list ?? undefined,
    maxPixels,
    refuseEmptyClasses: !allowEmptyClasses,
  });
  reportFound(dataset, job);
  const seconds = ((performance.now() - begun) / 1000).toFixed(2);
  job.reporter.debug?.('data', `${dataset.root}: listed ${dataset.size} images in ${seconds} s`);
  const { image_size: imageSize } = tokenizer;
  const { onUnreadable, onSmall: tell } = imageWarnings(job.reporter);
  let told = false;
  const onSmall = (found: SmallImages) => {
    if (!told) tell(found); // both stages read the same images
    told = true;
  };
  const options = { dataset, imageSize, batchSize, seed, share: job.group, onUnreadable, onSmall };
  return {
    openBatches: (position) => new TrainingLoader({ ...options, position }),
    classNames: dataset.classNames,
    inputs: { 'training images': datasetIdentity(dataset) },
  };
}
