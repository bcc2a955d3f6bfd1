import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { listCheckpoints } from '../checkpoint/run-files.js';
import { loadTokenizer } from '../checkpoint/tokenizer-file.js';
import type { Config } from '../config/schema.js';
import { openDataset } from '../data/dataset.js';
import { TrainingLoader } from '../data/loader.js';
import { readEvenly } from '../data/read-evenly.js';
import { CheckpointError, ConfigError } from '../errors.js';
import type { Job } from '../job/job.js';
import { type Reporter, warnOfSkipped } from '../job/reporter.js';
import type { Stage } from '../models/geometry.js';
import type { Tokenizer } from '../models/tokenizer.js';
import type { Preview } from './loop.js';
import { reconstructionPreview } from './previews.js';
import { type Runner, runTraining } from './run-training.js';
import { type OpenBatches, TokenizerTrainer } from './tokenizer-trainer.js';

export interface TrainTokenizerOptions {
  config: Config;
  /** The folder that gets the runs `stage1` and `stage2`. */
  run: string;
  stages: readonly Stage[];
  resume: boolean;
  /** For stage 2: a stage-1 tokenizer other than that of `run`. */
  from?: string;
}

/** The training images of a config, as an endless loader; logs files it cannot read. */
export async function openTraining(
  { data, tokenizer, seed }: Config,
  batchSize: number,
  reporter: Reporter,
): Promise<{ openBatches: OpenBatches; classNames: readonly string[] }> {
  if (!data.train)
    throw new ConfigError('data.train is not set: name the folder of training images with --data');
  const dataset = await openDataset({ folder: data.train, list: data.train_list ?? undefined });
  const { image_size: imageSize } = tokenizer;
  const options = { dataset, imageSize, batchSize, seed, onUnreadable: warnOfSkipped(reporter) };
  return {
    openBatches: (position) => new TrainingLoader({ ...options, position }),
    classNames: dataset.classNames,
  };
}

/** Reconstructions of held-out images, or of training images where the config names none. */
async function openPreview({ data, tokenizer, logging }: Config, reporter: Reporter) {
  const [folder, list] = data.validation
    ? [data.validation, data.validation_list]
    : [data.train!, data.train_list];
  if (!data.validation) reporter.warn('no validation images are given: the previews show training images');
  const dataset = await openDataset({ folder, list: list ?? undefined });
  const { images } = await readEvenly(
    dataset,
    tokenizer.image_size,
    logging.validation_images,
    warnOfSkipped(reporter),
  );
  const name = data.validation ? 'validation_psnr' : 'preview_psnr';
  return (model: Tokenizer): Preview => reconstructionPreview(model, images, name);
}

/** Trains the stages in turn, each in its own run folder; stage 2 starts from stage 1's encoder and codebook. `run` says what is done with each. */
export async function trainTokenizer(
  options: TrainTokenizerOptions,
  job: Job,
  run: Runner = runTraining,
): Promise<void> {
  const { config, stages, resume, from } = options;
  const { openBatches } = await openTraining(config, config.tokenizer_training.batch_size, job.reporter);
  const previewOf = await openPreview(config, job.reporter);
  for (const stage of stages) {
    const folder = join(options.run, `stage${stage}`);
    const trainer = new TokenizerTrainer(config, stage, openBatches);
    const initialize = async () => {
      const source = stage === 2 ? await loadStage1(from, join(options.run, 'stage1'), config) : undefined;
      trainer.initialize(source);
      source?.parameters.dispose();
    };
    const started = existsSync(join(folder, 'run.json'));
    await run(
      trainer,
      {
        label: `stage ${stage}`,
        folder,
        config,
        // With both stages, the second may not have begun when the first was interrupted.
        resume: resume && (started || stages.length === 1 || stage === 1),
        initialize,
        preview: previewOf(trainer.tokenizer),
      },
      job,
    );
    trainer.dispose();
  }
}

/** The tokenizer that stage 2 starts from: `from`, else the newest of the run `stage1`. Throws CheckpointError. */
async function loadStage1(from: string | undefined, stage1: string, config: Config): Promise<Tokenizer> {
  if (from === undefined && (await listCheckpoints(stage1)).length === 0)
    throw new CheckpointError(
      `${stage1} holds no checkpoint for stage 2 to start from; train stage 1 first, or name another run with --from`,
    );
  const path = from ?? stage1;
  const source = await loadTokenizer(path);
  const { decoder: _, ...own } = source.config;
  const { decoder: __, ...wanted } = config.tokenizer;
  const differing = (Object.keys(wanted) as (keyof typeof wanted)[]).filter(
    (key) => JSON.stringify(own[key]) !== JSON.stringify(wanted[key]),
  );
  if (differing.length > 0)
    throw new CheckpointError(
      `${path} was trained with another ${differing.map((key) => `tokenizer.${key}`).join(', ')}; use the config it was trained with`,
    );
  return source;
}
