import type { Say } from '../../checkpoint/model-file.js';
import { loadTokenizer } from '../../checkpoint/tokenizer.js';
import type { Config } from '../../config/schema.js';
import { CheckpointError, option } from '../../errors.js';
import type { Job } from '../../job/job.js';
import type { Stage } from '../../models/geometry.js';
import { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { listCheckpoints, stageFolder } from '../../run/layout.js';
import { initialInput } from '../initial-weights.js';
import { type ResumeOptions, type Runner, runTraining } from '../run-training.js';
import { type ImageLimits, openTraining } from '../training-images.js';
import { checkInit, initTokenizer, startsFrom } from './init.js';
import { checkLossNetworks, openLossNetworks } from './loss-networks.js';
import { checkPhases } from './phases.js';
import { openPreview } from './preview.js';
import { freezeTokenizer, TokenizerTrainer } from './trainer.js';

export interface TrainTokenizerOptions extends ResumeOptions {
  config: Config;
  /** The folder for the runs `stage1` and `stage2`. */
  run: string;
  stages: readonly Stage[];
  /** For stage 2: a stage-1 tokenizer, if not that of `run`. */
  from?: string;
  /** Trained weights to start from: a model file or run folder. */
  init?: string;
  images?: ImageLimits;
}

/** Config keys that change the result of a stage. */
const DECISIVE: Record<Stage, RegExp> = {
  1: /^(seed$|tokenizer\.|discriminator\.|tokenizer_training\.(?!stage2|shard_optimizer$))/,
  2: /^(seed$|tokenizer\.|discriminator\.|tokenizer_training\.(?!stage1|shard_optimizer$))/,
};

/**
 * Trains the stages in turn, each in its own run folder; stage 2 starts from stage 1's encoder and codebook. `run` takes
 * over when a stage is ready.
 */
export async function trainTokenizer(
  options: TrainTokenizerOptions,
  job: Job,
  run: Runner = runTraining,
): Promise<void> {
  const { config, stages, resume, allowChanges, from, init, images } = options;
  // Check stage 2 as well before stage 1 runs for days.
  for (const stage of stages) {
    checkPhases(config, stage);
    freezeTokenizer(new Tokenizer(config.tokenizer, stage), config.tokenizer_training);
    if (init && (await startsFrom(init, stage, stages))) await checkInit(init, config.tokenizer, stage);
  }
  await checkLossNetworks(config, stages);
  const { batch_size } = config.tokenizer_training;
  const { openBatches, inputs } = await openTraining(config, batch_size, job, images);
  const previewOf =
    (job.group?.rank ?? 0) === 0 ? await openPreview(config, job, images?.maxPixels) : undefined;
  for (const stage of stages) {
    const networks = await openLossNetworks(config, stage);
    try {
      const trainer = new TokenizerTrainer(config, stage, openBatches, networks.terms, job.group);
      const begin = init && (await startsFrom(init, stage, stages)) ? init : undefined;
      // Weights of a whole tokenizer have encoder and codebook, unless stage 1 has just trained others.
      const needsStage1 = stage === 2 && (begin === undefined || from !== undefined || stages.includes(1));
      const initialize = async () => {
        const { tokenizer, initial } = trainer;
        const source = needsStage1
          ? await loadStage1(from, stageFolder(options.run, 1), config, job.reporter.warn)
          : undefined;
        try {
          const adopted = begin && (await initTokenizer(begin, tokenizer, initial, job.reporter));
          if (adopted) trainer.begin(source);
          else trainer.initialize(source);
          return adopted || undefined;
        } finally {
          source?.parameters.dispose();
        }
      };
      await run(
        trainer,
        {
          label: `stage ${stage}`,
          folder: stageFolder(options.run, stage),
          config,
          // The run may have been interrupted in stage 1.
          resume: resume && stages.length > 1 && stage === 2 ? 'auto' : resume,
          allowChanges,
          decisive: DECISIVE[stage],
          inputs: { ...inputs, ...networks.inputs, ...(begin && (await initialInput(begin))) },
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

/** The tokenizer that stage 2 starts from: `from`, or else the newest of the run `stage1`. @throws CheckpointError */
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
