import { z } from 'zod';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';

/** Bounds far above any model of this kind, and far below what makes building one a burden. */
const size = z
  .int()
  .min(1)
  .max(2 ** 20);
const side = z
  .int()
  .min(1)
  .max(2 ** 13);
const grid = z
  .int()
  .min(1)
  .max(2 ** 9);
const layers = z
  .int()
  .min(1)
  .max(2 ** 10);
const names = z.array(z.string()).max(2 ** 20);

const transformer = { width: size, layers, heads: size };

const kinds = z.discriminatedUnion('kind', [
  z.looseObject({
    kind: z.literal('tokenizer'),
    stage: z.literal([1, 2]),
    tokenizer: z
      .looseObject({
        image_size: side,
        patch_size: side,
        codebook_size: size,
        token_size: size,
        encoder: z.looseObject(transformer),
        decoder: z.looseObject({ ...transformer, class_tokens: size }),
        l2_normalize: z.boolean(),
      })
      .refine(({ image_size, patch_size }) => grid.safeParse(image_size / patch_size).success, {
        message: 'must have a whole number of patches a side, 512 at the most',
        path: ['patch_size'],
      }),
  }),
  z.looseObject({
    kind: z.literal('generator'),
    generator: z.looseObject({
      ...transformer,
      classes: size,
      codebook_size: size,
      prefix_tokens: grid,
      grid,
    }),
    classNames: names,
    tokenizer: z.string().optional(),
    sample: z.record(z.string(), z.union([z.number(), z.boolean(), z.string(), z.null()])),
  }),
  z.looseObject({
    kind: z.literal('feature-network'),
    network: z.looseObject({ image_size: side, classes: size, channels: z.array(size).min(1).max(64) }),
    classNames: names,
  }),
]);

/**
 * A model file's description of itself, from JSON, before anything is built by it.
 * @throws CheckpointError, naming what is wrong, where it is not sound or no model's sizes
 */
export function parseDescription({ path }: Pick<TensorFile, 'path'>, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`${path}: its description is damaged; write the file again`, { cause: error });
  }
  const result = kinds.safeParse(value);
  if (result.success) return result.data;
  const [{ path: key, message }] = result.error.issues;
  throw new CheckpointError(
    `${path}: its description is damaged, ${key.join('.') || 'it'}: ${message}; write the file again`,
  );
}
