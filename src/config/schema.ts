import { z } from 'zod';
import { ConfigError } from '../errors.js';
import {
  checkQuantizer,
  PUBLISHED_QUANTIZER,
  QUANTIZER_NAMES,
  quantizerOf,
} from '../models/tokenizer/quantizers/index.js';
import { explain } from './explain.js';

const count = z.int().min(1);
const wholeNumber = z.int().min(0);
const positive = z.number().positive();
const nonNegative = z.number().min(0);
/** A rate, a share or a decay that must not reach 1. */
const rate = z.number().min(0).lt(1);
const path = z.string().min(1);

const transformer = (width: number, layers: number, heads: number) => ({
  width: count.default(width),
  layers: count.default(layers),
  heads: count.default(heads),
});

/** One phase of a stage: the learning rate goes from `lr` to `lr_end` along a line over its `steps`. */
const phase = z
  .strictObject({
    steps: count,
    lr: positive,
    /** Equal to `lr` if it is left out. */
    lr_end: positive.optional(),
    w_lpips: nonNegative.default(0),
    w_perc: nonNegative.default(0),
    adversarial: z.boolean().default(false),
    /** Ends the phase once the smoothed loss has not fallen by `min_delta` for `patience_steps`. */
    early_stop: z.strictObject({ patience_steps: count, min_delta: nonNegative }).nullable().default(null),
  })
  .transform((value) => ({ ...value, lr_end: value.lr_end ?? value.lr }));

/** The published recipe (AliTok, arXiv 2506.05289) with its first and second phase's lengths. */
const publishedPhases = (first: number, second: number) => [
  { steps: first, lr: 1e-4, w_lpips: 1, w_perc: 0.1 },
  { steps: second, lr: 1e-4, lr_end: 2e-5, w_perc: 1 },
  { steps: 100_000, lr: 2e-5, lr_end: 2e-6, w_perc: 1, adversarial: true },
];

/** The lists among the defaults, as a file would write them: where an override such as `phases.0.steps=10` finds them. */
export const DEFAULT_LISTS = {
  tokenizer_training: {
    stage1: { phases: publishedPhases(50_000, 200_000) },
    stage2: { phases: publishedPhases(50_000, 150_000) },
  },
  features: { channels: [32, 64, 128, 256] },
};
const { tokenizer_training: defaultPhases, features: defaultFeatures } = DEFAULT_LISTS;

/** All sections and keys with their types, defaults and ranges. */
export const schema = z
  .strictObject({
    name: z.string().min(1).default('alitok'),
    /** Of everything that is drawn at random, except sampling. */
    seed: z.int().min(0).max(0xffffffff).default(0),

    tokenizer: z
      .strictObject({
        image_size: count.default(256),
        patch_size: count.default(16),
        /** How many codes there are. */
        codebook_size: count.min(2).default(4096),
        /** How many numbers a token has. */
        token_size: count.default(32),
        /** How latents become codes: the published vector quantizer, FSQ (arXiv 2309.15505) or SimVQ (arXiv 2411.02038). */
        quantizer: z.enum(QUANTIZER_NAMES).default(PUBLISHED_QUANTIZER),
        /** Of `vq`: compares unit vectors. */
        l2_normalize: z.boolean().default(false),
        /** Of `fsq`: levels of each of the token_size channels, codebook_size in product; none below 5 works best. */
        fsq_levels: z.array(z.int().min(2)).min(1).nullable().default(null),
        encoder: z.strictObject(transformer(768, 12, 12)).prefault({}),
        decoder: z
          .strictObject({
            ...transformer(1024, 24, 16),
            /** Learned tokens in front of the stage-2 decoder. */
            class_tokens: count.default(32),
          })
          .prefault({}),
      })
      .prefault({}),

    discriminator: z
      .strictObject({ hidden_channels: count.default(128), stages: count.default(3) })
      .prefault({}),

    tokenizer_training: z
      .strictObject({
        /** Images a step; `accumulation` cuts them into so many micro-batches. */
        batch_size: count.default(48),
        accumulation: count.default(1),
        /** Computes each transformer block again in the backward pass, to keep less in memory. */
        checkpoint_activations: z.boolean().default(false),
        /** Whether each of several processes keeps the moments of its part of the parameters only. */
        shard_optimizer: z.boolean().default(false),
        warmup_steps: wholeNumber.default(10_000),
        beta1: rate.default(0.9),
        beta2: rate.default(0.999),
        weight_decay: nonNegative.default(0.01),
        /** Largest norm of the gradient; 0 for no limit. */
        clip_norm: nonNegative.default(0),
        /** Fresh weights' standard deviation; widths under 256 want more, about half of 1/√width. Weights are cut at ±2. */
        init_std: positive.max(2).default(0.02),
        /** Start of the last layer, 3 colours to 3: `identity` spares short runs thousands of steps. */
        colour_init: z.enum(['normal', 'identity']).default('normal'),
        commitment: nonNegative.default(0.25),
        aux_weight: nonNegative.default(10),
        /** Factor of both adversarial losses … */
        adversarial_weight: nonNegative.default(0.1),
        /** … and another one, of what the tokenizer minimizes only. */
        adversarial_factor: nonNegative.default(0.05),
        /** The term goes by the mean logits of a micro-batch. */
        lecam_weight: nonNegative.default(0),
        /** Decay of the codebook usage that the clustering update goes by. */
        usage_decay: rate.default(0.99),
        stage1: z
          .strictObject({
            /** Moves codebook entries that are hardly used; the default follows the quantizer: true for `vq`, which alone can. */
            clustering: z.boolean().optional(),
            phases: z.array(phase).min(1).prefault(defaultPhases.stage1.phases),
          })
          .prefault({}),
        stage2: z
          .strictObject({
            clustering: z
              .literal(false, { error: 'must be false, for stage 2 does not change the codebook' })
              .default(false),
            phases: z.array(phase).min(1).prefault(defaultPhases.stage2.phases),
          })
          .prefault({}),
      })
      .prefault({}),

    /** Files of networks that others trained, which w_lpips (both of the first) and w_perc need. */
    networks: z
      .strictObject({
        /** torchvision's VGG-16. */
        vgg16: path.nullable().default(null),
        /** The weights of LPIPS version 0.1 for it. */
        lpips: path.nullable().default(null),
        /** torchvision's ConvNeXt-S. */
        convnext: path.nullable().default(null),
      })
      .prefault({}),

    generator: z
      .strictObject({
        ...transformer(768, 24, 16),
        classes: count.default(1000),
        dropout: rate.default(0.1),
        /** Share of the training images whose class is replaced by "no class". */
        class_dropout: rate.default(0.1),
      })
      .prefault({}),

    generator_training: z
      .strictObject({
        steps: count.default(500_000),
        /** Images a step; `accumulation` cuts them into so many micro-batches. */
        batch_size: count.default(2048),
        accumulation: count.default(1),
        /** As in tokenizer_training. */
        checkpoint_activations: z.boolean().default(false),
        /** Whether each of several processes keeps the moments of its part of the parameters only. */
        shard_optimizer: z.boolean().default(false),
        lr: positive.default(4e-4),
        lr_end: positive.default(1e-5),
        warmup_steps: wholeNumber.default(62_500),
        beta1: rate.default(0.9),
        beta2: rate.default(0.96),
        weight_decay: nonNegative.default(0.03),
        clip_norm: nonNegative.default(1),
        ema: z.boolean().default(false),
        ema_decay: rate.default(0.9999),
      })
      .prefault({}),

    tokenize: z
      .strictObject({
        crops: z.enum(['ten-crop', 'flip']).default('ten-crop'),
        /** Crops encoded at once. */
        batch_size: count.default(50),
      })
      .prefault({}),

    sample: z
      .strictObject({
        /** 0 for no guidance at all. */
        guidance_scale: nonNegative.default(16),
        guidance_power: positive.default(1.8),
        /** 0 takes the most likely code. */
        temperature: nonNegative.default(1),
        /** 0 for all codes. */
        top_k: wholeNumber.default(0),
        top_p: z.number().positive().max(1).default(1),
        seed: z.int().min(0).max(0xffffffff).default(42),
        batch_size: count.default(50),
      })
      .prefault({}),

    /** The small classifier that takes Inception's place where images are too small for that. */
    features: z
      .strictObject({
        /** Of each of its stages. */
        channels: z.array(count.multipleOf(8)).min(1).prefault(defaultFeatures.channels),
        steps: count.default(2000),
        batch_size: count.default(64),
        lr: positive.default(1e-3),
      })
      .prefault({}),

    /** Folders or tar files of images; a list file names the images to take, one path relative to its folder a line. */
    data: z
      .strictObject({
        train: path.nullable().default(null),
        train_list: path.nullable().default(null),
        validation: path.nullable().default(null),
        validation_list: path.nullable().default(null),
      })
      .prefault({}),

    /** What to do about a batch whose loss or gradient is not finite. */
    guards: z
      .strictObject({
        on_nonfinite: z.enum(['stop', 'skip']).default('stop'),
        /** Batches in a row that may be skipped. */
        max_skipped: count.default(5),
      })
      .prefault({}),

    logging: z
      .strictObject({
        /** Steps between two lines of the metrics log. */
        metrics_every: count.default(50),
        /** Steps between two validations, with their pictures. */
        images_every: count.default(1000),
        checkpoint_every: count.default(1000),
        /** The last so many checkpoints stay … */
        keep_checkpoints: count.default(3),
        /** … and those of every so many steps; 0 for none of them … */
        keep_every: wholeNumber.default(0),
        /** … and the best by this metric, of those whose step has it in the metrics log. */
        keep_best: z.enum(['validation_psnr', 'psnr', 'accuracy', 'loss']).nullable().default(null),
        validation_images: count.default(256),
        /** Whether the run's record is also written as event files for TensorBoard. */
        tensorboard: z.boolean().default(true),
      })
      .prefault({}),
  })
  .superRefine((config, context) => {
    const { tokenizer, tokenizer_training, discriminator, generator, generator_training, data, logging } =
      config;
    const check = (holds: boolean, key: string, message: string) => {
      if (!holds) context.addIssue({ code: 'custom', path: key.split('.'), message });
    };
    const checkMultiple = (value: number, key: string, divisor: number, divisorKey: string) =>
      check(
        value % divisor === 0,
        key,
        `must be a multiple of ${divisorKey}: ${value} is not one of ${divisor}`,
      );
    const quantizer = checkQuantizer(tokenizer);
    if (quantizer) check(false, `tokenizer.${quantizer.key}`, quantizer.message);
    check(
      !tokenizer_training.stage1.clustering || quantizerOf(tokenizer).clusters,
      'tokenizer_training.stage1.clustering',
      `must be false or left out, for tokenizer.quantizer=${tokenizer.quantizer} has no clustering update`,
    );
    const { image_size, patch_size, encoder, decoder } = tokenizer;
    checkMultiple(image_size, 'tokenizer.image_size', patch_size, 'tokenizer.patch_size');
    for (const [section, { width, heads }] of Object.entries({
      'tokenizer.encoder': encoder,
      'tokenizer.decoder': decoder,
      generator,
    }))
      checkMultiple(width, `${section}.width`, heads, `${section}.heads`);
    const { width, heads } = generator;
    check(
      width % heads !== 0 || (width / heads) % 4 === 0,
      'generator.width',
      `must give each of generator.heads a multiple of 4 channels, two pairs for the rotary embedding's row and column: ${width} / ${heads} = ${width / heads}`,
    );
    checkMultiple(discriminator.hidden_channels, 'discriminator.hidden_channels', 32, 'its 32 groups');
    for (const [section, { batch_size, accumulation }] of Object.entries({
      tokenizer_training,
      generator_training,
    }))
      checkMultiple(batch_size, `${section}.batch_size`, accumulation, `${section}.accumulation`);
    checkMultiple(
      logging.keep_every,
      'logging.keep_every',
      logging.checkpoint_every,
      'logging.checkpoint_every',
    );
    const measured = logging.keep_best === 'validation_psnr' ? 'images_every' : 'metrics_every';
    if (logging.keep_best !== null)
      checkMultiple(
        logging.checkpoint_every,
        'logging.checkpoint_every',
        logging[measured],
        `logging.${measured}, for logging.keep_best to be measured`,
      );
    for (const [folder, list] of [
      ['train', 'train_list'],
      ['validation', 'validation_list'],
    ] as const)
      check(
        data[list] === null || data[folder] !== null,
        `data.${list}`,
        `needs data.${folder}, the folder that its paths start from`,
      );
  })
  .transform((config) => {
    const { clustering = quantizerOf(config.tokenizer).clusters, phases } = config.tokenizer_training.stage1;
    const tokenizer_training = { ...config.tokenizer_training, stage1: { clustering, phases } };
    return { ...config, tokenizer_training };
  });

/** One experiment: the validated values of every section, with all defaults filled in. */
export type Config = z.infer<typeof schema>;

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  for (const part of Object.values(value)) freeze(part);
  return Object.freeze(value);
}

/**
 * Validates a config read from anywhere and fills in the defaults; the result is frozen.
 * @param where names the source of the value at a key path, for messages
 * @throws ConfigError with one line: source, key path, what is wrong
 */
export function parseConfig(value: unknown, where: string | ((path: PropertyKey[]) => string)): Config {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return freeze(result.data);
  const [issue, ...others] = result.error.issues;
  const { path, message } = explain(schema, issue);
  const source = typeof where === 'string' ? where : where(path);
  const key = path.length > 0 ? `${path.join('.')}: ` : '';
  const more = others.length > 0 ? ` (and ${others.length} more)` : '';
  throw new ConfigError(`${source}: ${key}${message}${more}`);
}
