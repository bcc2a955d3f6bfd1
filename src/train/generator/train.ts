import { fingerprint, loadTokenizer } from '../../checkpoint/tokenizer.js';
import type { Config } from '../../config/schema.js';
import { ConfigError, DataError, option } from '../../errors.js';
import type { Job } from '../../job/job.js';
import { tokenizerGeometry } from '../../models/geometry.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { counted } from '../../text.js';
import { checkTokenizer, openTokenCache } from '../../tokens/cache.js';
import type { TokenCache } from '../../tokens/codes.js';
import { initialInput } from '../initial-weights.js';
import { type ResumeOptions, type Runner, runTraining } from '../run-training.js';
import { checkInit, type GeneratorInit, initGenerator } from './init.js';
import { samplePreview } from './preview.js';
import { GeneratorTrainer } from './trainer.js';

export interface TrainGeneratorOptions extends ResumeOptions {
  config: Config;
  /** The run folder. */
  run: string;
  /** The token cache. */
  tokens: string;
  /** The tokenizer that made the cache, to draw samples with during training. */
  tokenizer?: string;
  /** Trained weights to start from. */
  init?: GeneratorInit;
}

/** Refuses a warm-up after which no step is left for the learning rate to fall. @throws ConfigError */
export function checkWarmup({ generator_training }: Config): void {
  const { steps, warmup_steps } = generator_training;
  if (warmup_steps >= steps)
    throw new ConfigError(
      `generator_training.warmup_steps is ${warmup_steps}, but the training is ${steps} steps: the learning rate would never fall to lr_end; set it lower, or steps higher`,
    );
}

/**
 * Checks a cache against the sizes of the config's tokenizer and generator; warns where it has fewer classes, or where
 * samples would be guided though there is only one.
 * @throws DataError, ConfigError where they do not fit
 */
function checkSizes(cache: TokenCache, { tokenizer, generator, sample }: Config, { reporter }: Job): void {
  const { tokens, prefix_tokens } = tokenizerGeometry(tokenizer);
  const { image_size, patch_size, codebook_size } = tokenizer;
  if (cache.tokens !== tokens)
    throw new DataError(
      `${cache.path} has ${cache.tokens} codes an image, but ${image_size} px at tokenizer.patch_size ${patch_size} have ${tokens}, a prefix of ${prefix_tokens} included; use the tokenizer's config`,
    );
  const entries = cache.provenance?.codebookSize;
  if (entries !== undefined && entries !== codebook_size)
    throw new DataError(
      `${cache.path} has codes of ${entries} entries, but tokenizer.codebook_size is ${codebook_size}; use the tokenizer's config`,
    );
  const highest = cache.classes.reduce((a, b) => Math.max(a, b), 0);
  if (highest >= generator.classes)
    throw new ConfigError(
      `generator.classes is ${generator.classes}, but ${cache.path} has class ${highest}; set generator.classes=${cache.classNames.length}`,
    );
  const named = cache.classNames.length;
  if (named > 0 && named < generator.classes)
    reporter.warn(
      `generator.classes is ${generator.classes}, but ${cache.path} has ${counted(named, 'class', 'classes')}: the others would be sampled without having been trained; set generator.classes=${named}`,
    );
  if (generator.classes === 1 && sample.guidance_scale !== 0)
    reporter.warn(
      'generator.classes is 1, so guidance of samples has nothing to tell apart and only amplifies errors; set sample.guidance_scale=0',
    );
}

/**
 * `tokens.safetensors: 60 images in 2 classes, each in 10 crops (ten-crop) of 73 codes`; images without class folders are in
 * no classes.
 */
function foundText({ path, images, crops, tokens, classNames, provenance }: TokenCache): string {
  const flat = classNames.length === 1 && classNames[0] === '';
  const classes = flat ? '' : ` in ${counted(classNames.length, 'class', 'classes')}`;
  const way = provenance ? ` (${provenance.preprocessing})` : '';
  return `${path}: ${counted(images, 'image', 'images')}${classes}, each in ${counted(crops, 'crop', 'crops')}${way} of ${counted(tokens, 'code', 'codes')}`;
}

/** Config keys that change the result of the training. */
const DECISIVE = /^(seed$|tokenizer\.|generator\.|generator_training\.(?!shard_optimizer$))/;

/** Identifies a token cache. The tokenizer is part of it, because its codebook gives the codes their meaning. */
function inputsOf({ images, crops, tokens, provenance }: TokenCache): Record<string, string> {
  return {
    'the tokenizer of the codes': provenance?.fingerprint ?? 'not known',
    'the codes': `${images} images, ${crops} crops (${provenance?.preprocessing ?? 'not known'}), ${tokens} codes each`,
  };
}

/** Trains the generator on a token cache, in a run folder; `run` takes over when all is ready. */
export async function trainGenerator(
  options: TrainGeneratorOptions,
  job: Job,
  run: Runner = runTraining,
): Promise<void> {
  const { config, run: folder, tokens, init, resume, allowChanges } = options;
  checkWarmup(config);
  if (config.generator_training.lora && !init)
    throw new ConfigError(
      `generator_training.lora adapts trained weights; name them with ${option('init')}, or set generator_training.lora=null`,
    );
  const cache = await openTokenCache(tokens);
  let tokenizer: Tokenizer | undefined;
  try {
    if ((job.group?.rank ?? 0) === 0) job.reporter.info(foundText(cache));
    checkSizes(cache, config, job);
    if (options.tokenizer && (job.group?.rank ?? 0) === 0) {
      tokenizer = await loadTokenizer(options.tokenizer, job.reporter.warn);
      checkTokenizer(cache, await fingerprint(tokenizer));
    }
    const { grid, prefix_tokens } = tokenizerGeometry(config.tokenizer);
    const { width, layers, heads, classes } = config.generator;
    const { codebook_size } = config.tokenizer;
    const sizes = { width, layers, heads, classes, codebook_size, prefix_tokens, grid };
    const trainer = new GeneratorTrainer(config, cache, sizes, job.group);
    const { generator } = trainer;
    const { classNames, provenance } = cache;
    const target = { generator, classNames, tokenizer: provenance?.fingerprint };
    if (init && (job.group?.rank ?? 0) === 0) await checkInit(init, target, job.reporter);
    const initialize = async () => {
      if (!init) {
        trainer.initialize();
        return undefined;
      }
      const initial = await initGenerator(init, target, trainer.initial, job.reporter);
      trainer.begin();
      return initial;
    };
    const preview = tokenizer && samplePreview(generator, tokenizer, classNames, config.sample);
    await run(
      trainer,
      {
        label: 'generator',
        folder,
        config,
        resume,
        allowChanges,
        decisive: DECISIVE,
        inputs: { ...inputsOf(cache), ...(init && (await initialInput(init.path, init.classes))) },
        initialize,
        preview,
      },
      job,
    ).finally(() => trainer.dispose());
  } finally {
    tokenizer?.parameters.dispose();
    await cache.close();
  }
}
