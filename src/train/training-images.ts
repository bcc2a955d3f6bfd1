import type { Config } from '../config/schema.js';
import { datasetIdentity, openDataset } from '../data/dataset.js';
import { reportFound } from '../data/found.js';
import { type Position, type SmallImages, TrainingLoader } from '../data/loader.js';
import { ConfigError, option } from '../errors.js';
import type { Job } from '../job/job.js';
import { imageWarnings } from '../job/reporter.js';

/** Opens the endless batches of training images at a position, or at the start. */
export type OpenBatches = (position?: Position) => TrainingLoader;

/** Which images are taken. */
export interface ImageLimits {
  /** Pixels that one may have at most. */
  maxPixels?: number;
  /** Takes class folders without an image too; their numbers stay. */
  allowEmptyClasses?: boolean;
}

/** The training images of a config, as an endless loader of this process's share; logs what is found and what is wrong. */
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
    if (!told) tell(found); // stages that follow each other read the same images
    told = true;
  };
  const options = { dataset, imageSize, batchSize, seed, share: job.group, onUnreadable, onSmall };
  return {
    openBatches: (position) => new TrainingLoader({ ...options, position }),
    classNames: dataset.classNames,
    inputs: { 'training images': datasetIdentity(dataset) },
  };
}
