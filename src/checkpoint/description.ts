import { z } from 'zod';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';

/** The key of a model's description in the file's metadata. */
const KEY = 'alitok';

/** What a model file says about its model: which kind it is, and all that is needed to build it. */
export interface ModelDescription {
  kind: 'tokenizer' | 'generator' | 'adapters' | 'feature-network';
}

/** Bounds of the sizes in a description: far above those of any model, and far below those that fill the memory. */
export const size = z
  .int()
  .min(1)
  .max(2 ** 20);
export const side = z
  .int()
  .min(1)
  .max(2 ** 13);
export const gridSide = z
  .int()
  .min(1)
  .max(2 ** 9);
const layers = z
  .int()
  .min(1)
  .max(2 ** 10);
export const transformer = { width: size, layers, heads: size };
export const classNames = z.array(z.string()).max(2 ** 20);

/** The metadata of a model file. */
export function metadataOf(description: ModelDescription): Record<string, string> {
  return { format: 'pt', [KEY]: JSON.stringify(description) };
}

/** The description in a model file's metadata, as it stands there; undefined if there is none. @throws CheckpointError */
export function readDescription({ path, metadata }: TensorFile): unknown {
  const text = metadata[KEY];
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`${path}: its description is damaged; write the file again`, { cause: error });
  }
}

/**
 * Checks a description before anything is built from it, and fills in what older files do not say.
 * @throws CheckpointError, naming what is wrong, where sizes are missing or are not those of a model
 */
export function checkDescription(
  { path }: Pick<TensorFile, 'path'>,
  schema: z.ZodType,
  description: unknown,
): ModelDescription {
  const result = schema.safeParse(description);
  if (result.success) return result.data as ModelDescription;
  const [{ path: key, message }] = result.error.issues;
  throw new CheckpointError(
    `${path}: its description is damaged, ${key.join('.') || 'it'}: ${message}; write the file again`,
  );
}
