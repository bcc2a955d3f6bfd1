import type { Config } from '../../config/schema.js';
import { DataError } from '../../errors.js';
import type { Job } from '../../job/job.js';
import { type ResumeOptions, runTraining } from '../run-training.js';
import { type ImageLimits, openTraining } from '../training-images.js';
import { FeatureTrainer } from './trainer.js';

/** Config keys that change the result of the training. */
const DECISIVE = /^(seed$|features\.|tokenizer\.image_size$|tokenizer_training\.(beta1|beta2|weight_decay)$)/;

/** Trains a feature network on the classes of the config's training images, in a run folder. */
export async function trainFeatures(
  { config, run, images, ...resuming }: { config: Config; run: string; images?: ImageLimits } & ResumeOptions,
  job: Job,
): Promise<void> {
  const { batch_size } = config.features;
  const { openBatches, classNames, inputs } = await openTraining(config, batch_size, job, images);
  if (classNames.length < 2)
    throw new DataError(
      `${config.data.train} has no class folders, from which features are learned; name a folder with at least two`,
    );
  const trainer = new FeatureTrainer(config, classNames, openBatches, job.group);
  const initialize = async () => {
    trainer.initialize();
    return undefined;
  };
  await runTraining(
    trainer,
    { label: 'features', folder: run, config, ...resuming, decisive: DECISIVE, inputs, initialize },
    job,
  ).finally(() => trainer.dispose());
}
