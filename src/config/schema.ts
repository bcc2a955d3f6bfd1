import { z } from 'zod';
import { ConfigError } from '../errors.js';
import { checkPrefix, normalizePrefix } from '../models/geometry.js';
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
/** A rate, a share or a decay; less than 1. */
const rate = z.number().min(0).lt(1);
const path = z.string().min(1);

/** What fine-tuning changes in the training of a model. */
const fineTuning = {
  /** Names of parameters that are not trained, or of modules, such as `encoder` or `blocks.*.attn`; * is any text. */
  freeze: z.array(z.string().min(1)).default([]),
  /** Each layer's learning rate is this factor times that of the next one; 1 for the same rate. */
  layer_decay: z.number().positive().max(1).default(1),
};

const transformer = (width: number, layers: number, heads: number) => ({
  width: count.default(width),
  layers: count.default(layers),
  heads: count.default(heads),
});

/** One phase of a stage: the learning rate goes linearly from `lr` to `lr_end` over its `steps`. */
const phase = z
  .strictObject({
    steps: count,
    lr: positive,
    /** By default equal to `lr`. */
    lr_end: positive.optional(),
    w_lpips: nonNegative.default(0),
    w_perc: nonNegative.default(0),
    adversarial: z.boolean().default(false),
    /** Ends the phase when the smoothed loss has not fallen by `min_delta` for `patience_steps`. */
    early_stop: z.strictObject({ patience_steps: count, min_delta: nonNegative }).nullable().default(null),
  })
  .transform((value) => ({ ...value, lr_end: value.lr_end ?? value.lr }));

/** The published recipe (AliTok, arXiv 2506.05289), given the steps of its first and second phase. */
const publishedPhases = (first: number, second: number) => [
  { steps: first, lr: 1e-4, w_lpips: 1, w_perc: 0.1 },
  { steps: second, lr: 1e-4, lr_end: 2e-5, w_perc: 1 },
  { steps: 100_000, lr: 2e-5, lr_end: 2e-6, w_perc: 1, adversarial: true },
];

/** The defaults that are lists, as a file would write them, so that an override such as `phases.0.steps=10` can change an entry. */
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
    /** Of all random numbers except those of sampling. */
    seed: z.int().min(0).max(0xffffffff).default(0),

    tokenizer: z
      .strictObject({
        image_size: count.default(256),
        patch_size: count.default(16),
        /** k: by default (null) image_size / patch_size + 1, as published; the ICLR 2026 version has image_size / patch_size. */
        prefix_tokens: count.nullable().default(null),
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
            /** Learned tokens in front of the codes in the stage-2 decoder. */
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
        /** Images a step; gradient accumulation cuts them into this number of micro-batches. */
        batch_size: count.default(48),
        accumulation: count.default(1),
        /** Computes each transformer block again in the backward pass, which saves memory. */
        checkpoint_activations: z.boolean().default(false),
        /** Whether each of several processes keeps the moments of only its part of the parameters. */
        shard_optimizer: z.boolean().default(false),
        warmup_steps: wholeNumber.default(10_000),
        beta1: rate.default(0.9),
        beta2: rate.default(0.999),
        weight_decay: nonNegative.default(0.01),
        /** Largest norm of the gradient; 0 for no limit. */
        clip_norm: nonNegative.default(0),
        /** Standard deviation of initial weights; widths under 256 need more, about half of 1/√width. Weights are cut at ±2. */
        init_std: positive.max(2).default(0.02),
        /** Initial value of the last layer, 3 colours to 3: `identity` saves short runs thousands of steps. */
        colour_init: z.enum(['normal', 'identity']).default('normal'),
        commitment: nonNegative.default(0.25),
        aux_weight: nonNegative.default(10),
        /** Whether the auxiliary loss has perceptual terms, too, with the phase's w_lpips and w_perc (ICLR 2026 version). */
        aux_perceptual: z.boolean().default(false),
        /** Weight of both adversarial losses … */
        adversarial_weight: nonNegative.default(0.1),
        /** … and a further factor of the tokenizer's. */
        adversarial_factor: nonNegative.default(0.05),
        /** Computed from the mean logits of each micro-batch. */
        lecam_weight: nonNegative.default(0),
        /** Decay of the codebook usage in the clustering update. */
        usage_decay: rate.default(0.99),
        ...fineTuning,
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
              .literal(false, { error: 'must be false, because stage 2 does not change the codebook' })
              .default(false),
            phases: z.array(phase).min(1).prefault(defaultPhases.stage2.phases),
          })
          .prefault({}),
      })
      .prefault({}),

    /** Third-party weights: w_lpips needs vgg16 and lpips, w_perc needs convnext. */
    networks: z
      .strictObject({
        /** torchvision's VGG-16. */
        vgg16: path.nullable().default(null),
        /** The weights of LPIPS version 0.1 for VGG-16. */
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
        /** Share of training images whose class is replaced by "no class". */
        class_dropout: rate.default(0.1),
      })
      .prefault({}),

    generator_training: z
      .strictObject({
        steps: count.default(500_000),
        /** Images a step; gradient accumulation cuts them into this number of micro-batches. */
        batch_size: count.default(2048),
        accumulation: count.default(1),
        /** As in tokenizer_training. */
        checkpoint_activations: z.boolean().default(false),
        /** Whether each of several processes keeps the moments of only its part of the parameters. */
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
        ...fineTuning,
        /** Trains low-rank adapters of the blocks' linear layers, and the embeddings, instead of all parameters. */
        lora: z
          .strictObject({
            rank: count.default(16),
            /** The adapters' output is multiplied by alpha / rank. */
            alpha: positive.default(32),
            /** Whether checkpoints hold the whole model, with merged adapters, or the adapters only. */
            merge: z.boolean().default(true),
          })
          .nullable()
          .default(null),
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
        /** 0 takes the most likely code each time. */
        temperature: nonNegative.default(1),
        /** 0 for all codes. */
        top_k: wholeNumber.default(0),
        top_p: z.number().positive().max(1).default(1),
        seed: z.int().min(0).max(0xffffffff).default(42),
        batch_size: count.default(50),
      })
      .prefault({}),

    /** The small classifier whose features evaluate images that are too small for Inception. */
    features: z
      .strictObject({
        /** Channels of each stage. */
        channels: z.array(count.multipleOf(8)).min(1).prefault(defaultFeatures.channels),
        steps: count.default(2000),
        batch_size: count.default(64),
        lr: positive.default(1e-3),
      })
      .prefault({}),

    /** Folders or tar files of images; a list file names the images to use, one path relative to the folder on each line. */
    data: z
      .strictObject({
        train: path.nullable().default(null),
        train_list: path.nullable().default(null),
        validation: path.nullable().default(null),
        validation_list: path.nullable().default(null),
      })
      .prefault({}),

    /** What to do when a batch's loss or gradient is not finite. */
    guards: z
      .strictObject({
        on_nonfinite: z.enum(['stop', 'skip']).default('stop'),
        /** Most batches in a row that are skipped. */
        max_skipped: count.default(5),
      })
      .prefault({}),

    logging: z
      .strictObject({
        /** Steps between two lines of the metrics log. */
        metrics_every: count.default(50),
        /** Steps between two validations, which also draw pictures. */
        images_every: count.default(1000),
        checkpoint_every: count.default(1000),
        /** This number of the last checkpoints are kept … */
        keep_checkpoints: count.default(3),
        /** … and those at multiples of this number of steps, if it is not 0 … */
        keep_every: wholeNumber.default(0),
        /** … and the best by this metric, among those at whose step it was logged. */
        keep_best: z.enum(['validation_psnr', 'psnr', 'accuracy', 'loss']).nullable().default(null),
        validation_images: count.default(256),
        /** Whether metrics and pictures are also written as event files for TensorBoard. */
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
    for (const wrong of [checkQuantizer(tokenizer), checkPrefix(tokenizer)])
      if (wrong) check(false, `tokenizer.${wrong.key}`, wrong.message);
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
    const { lora } = generator_training;
    check(
      lora === null || lora.rank <= width,
      'generator_training.lora.rank',
      `must be at most generator.width, which is ${width}`,
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
    return { ...config, tokenizer: normalizePrefix(config.tokenizer), tokenizer_training };
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
