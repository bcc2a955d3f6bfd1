import type { Config } from '../config/schema.js';
import { DataError } from '../errors.js';
import type { Job } from '../job/job.js';
import { FeatureTrainer } from './feature-trainer.js';
import { runTraining } from './run-training.js';
import { openTraining } from './train-tokenizer.js';

/** Trains a feature network on the classes of the config's training images, in a run folder. */
export async function trainFeatures(
  { config, run, resume }: { config: Config; run: string; resume: boolean },
  job: Job,
): Promise<void> {
  const { openBatches, classNames } = await openTraining(config, config.features.batch_size, job.reporter);
  if (classNames.length < 2)
    throw new DataError(
      `${config.data.train} has no class folders to tell apart, which features are learned from; give a folder of at least two`,
    );
  const trainer = new FeatureTrainer(config, classNames, openBatches);
  const initialize = () => trainer.initialize();
  await runTraining(trainer, { label: 'features', folder: run, config, resume, initialize }, job);
  trainer.model.dispose();
}
