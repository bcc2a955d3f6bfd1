import { join } from 'node:path';
import type { Say } from '../../checkpoint/model-file.js';
import { loadTokenizer } from '../../checkpoint/tokenizer-file.js';
import type { Config } from '../../config/schema.js';
import { openDataset, reportFound } from '../../data/dataset.js';
import { readEvenly } from '../../data/sequential.js';
import { CheckpointError, option } from '../../errors.js';
import type { Job } from '../../job/job.js';
import { imageWarnings } from '../../job/reporter.js';
import type { Stage } from '../../models/geometry.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { listCheckpoints } from '../../run/layout.js';
import { checkPhases } from '../check-schedule.js';
import type { Preview } from '../loop.js';
import { reconstructionPreview } from '../previews.js';
import { type ResumeOptions, type Runner, runTraining } from '../run-training.js';
import { type ImageLimits, openTraining } from '../training-images.js';
import { checkLossNetworks, openLossNetworks } from './loss-networks.js';
import { TokenizerTrainer } from './trainer.js';

export interface TrainTokenizerOptions extends ResumeOptions {
  config: Config;
  /** The folder that gets the runs `stage1` and `stage2`. */
  run: string;
  stages: readonly Stage[];
  /** For stage 2: a stage-1 tokenizer other than that of `run`. */
  from?: string;
  images?: ImageLimits;
}

/** Reconstructions of held-out images, or of training images where the config names none. */
async function openPreview({ data, tokenizer, logging }: Config, job: Job, maxPixels?: number) {
  const { reporter } = job;
  const [folder, list] = data.validation
    ? [data.validation, data.validation_list]
    : [data.train!, data.train_list];
  if (!data.validation) reporter.warn('no validation images are given: the previews show training images');
  const dataset = await openDataset({ folder, list: list ?? undefined, maxPixels });
  if (data.validation) reportFound(dataset, job);
  const { onUnreadable, onSmall } = imageWarnings(reporter);
  // Of training images the loader tells.
  const hears = data.validation ? { onUnreadable, onSmall } : { onUnreadable };
  const { images } = await readEvenly(dataset, tokenizer.image_size, logging.validation_images, hears);
  const name = data.validation ? 'validation_psnr' : 'preview_psnr';
  return (model: Tokenizer): Preview => reconstructionPreview(model, images, name);
}

/** The config's keys that decide what a stage makes. */
const DECISIVE: Record<Stage, RegExp> = {
  1: /^(seed$|tokenizer\.|discriminator\.|tokenizer_training\.(?!stage2|shard_optimizer$))/,
  2: /^(seed$|tokenizer\.|discriminator\.|tokenizer_training\.(?!stage1|shard_optimizer$))/,
};

/**
 * Trains the stages in turn, each in its own run folder; stage 2 starts from stage 1's encoder and codebook. `run` says
 * what is done with each once all is prepared.
 */
export async function trainTokenizer(
  options: TrainTokenizerOptions,
  job: Job,
  run: Runner = runTraining,
): Promise<void> {
  const { config, stages, resume, allowChanges, from, images } = options;
  // What is wrong with stage 2 is to be known before stage 1 has run for days.
  for (const stage of stages) checkPhases(config, stage);
  await checkLossNetworks(config, stages);
  const { batch_size } = config.tokenizer_training;
  const { openBatches, inputs } = await openTraining(config, batch_size, job, images);
  const previewOf =
    (job.group?.rank ?? 0) === 0 ? await openPreview(config, job, images?.maxPixels) : undefined;
  for (const stage of stages) {
    const networks = await openLossNetworks(config, stage);
    try {
      const trainer = new TokenizerTrainer(config, stage, openBatches, networks.terms, job.group);
      const initialize = async () => {
        const source =
          stage === 2
            ? await loadStage1(from, join(options.run, 'stage1'), config, job.reporter.warn)
            : undefined;
        trainer.initialize(source);
        source?.parameters.dispose();
      };
      await run(
        trainer,
        {
          label: `stage ${stage}`,
          folder: join(options.run, `stage${stage}`),
          config,
          // With both stages, the second may not have begun when the first was interrupted.
          resume: resume && stages.length > 1 && stage === 2 ? 'auto' : resume,
          allowChanges,
          decisive: DECISIVE[stage],
          inputs: { ...inputs, ...networks.inputs },
          initialize,
          preview: previewOf?.(trainer.tokenizer),
        },
        job,
      ).finally(() => trainer.dispose());
    } finally {
      networks.dispose();
    }
  }
}

/** The tokenizer that stage 2 starts from: `from`, else the newest of the run `stage1`. Throws CheckpointError. */
async function loadStage1(
  from: string | undefined,
  stage1: string,
  config: Config,
  say: Say,
): Promise<Tokenizer> {
  if (from === undefined && (await listCheckpoints(stage1)).length === 0)
    throw new CheckpointError(
      `${stage1} holds no checkpoint for stage 2 to start from; train stage 1 first, or name another run with ${option('from')}`,
    );
  const path = from ?? stage1;
  const source = await loadTokenizer(path, say);
  const { decoder: _, ...own } = source.config;
  const { decoder: __, ...wanted } = config.tokenizer;
  const differing = (Object.keys(wanted) as (keyof typeof wanted)[]).filter(
    (key) => JSON.stringify(own[key]) !== JSON.stringify(wanted[key]),
  );
  if (differing.length > 0) {
    source.parameters.dispose();
    throw new CheckpointError(
      `${path} was trained with another ${differing.map((key) => `tokenizer.${key}`).join(', ')}; use the config it was trained with`,
    );
  }
  return source;
}
