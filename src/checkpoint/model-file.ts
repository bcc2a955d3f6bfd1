import { CheckpointError } from '../errors.js';
import { openTensorFile } from '../formats/open.js';
import { writeSafetensors } from '../formats/safetensors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import type { Parameter } from '../nn/parameters.js';
import { verifyFile } from './checksums.js';
import { recognise } from './infer.js';

/** Under which a model's own description stands in the file's metadata. */
const KEY = 'alitok';

/** What a model file says of itself: which kind of model, and what is needed to build it. */
export interface ModelDescription {
  kind: 'tokenizer' | 'generator' | 'feature-network';
}

/** The metadata of a model file. */
export function metadataOf(description: ModelDescription): Record<string, string> {
  return { format: 'pt', [KEY]: JSON.stringify(description) };
}

/** Writes parameters under their checkpoint names as float32, with the description in the metadata. */
export async function saveModel(
  path: string,
  parameters: Iterable<Parameter>,
  description: ModelDescription,
): Promise<void> {
  await saveParameters(path, parameters, metadataOf(description));
}

/** Writes parameters as float32, one tensor in memory at a time. Throws OutputError. */
export async function saveParameters(
  path: string,
  parameters: Iterable<Parameter>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const tensors = Array.from(parameters, (p) => ({
    name: p.name,
    dtype: 'F32' as const,
    shape: p.shape,
    data: async () => (await p.value.data()) as Float32Array,
  }));
  await writeSafetensors(path, tensors, metadata);
}

/** The description in a model file's metadata, if it has one. Throws CheckpointError if it is not sound. */
export function describe(file: TensorFile): ModelDescription | undefined {
  const text = file.metadata[KEY];
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as ModelDescription;
  } catch (error) {
    throw new CheckpointError(`${file.path}: its description is damaged; write the file again`, {
      cause: error,
    });
  }
}

/**
 * Opens a model file of one kind and hands it over with its description; closes it afterwards. `infer` describes files
 * that others wrote, which hold tensors alone, from the tensors.
 * Throws CheckpointError if it is not such a file.
 */
export async function withModel<D extends ModelDescription, T>(
  path: string,
  kind: D['kind'],
  use: (file: TensorFile, description: D) => Promise<T>,
  infer?: (file: TensorFile) => D,
): Promise<T> {
  await verifyFile(path);
  const file = await openTensorFile(path);
  try {
    const own = describe(file);
    const network = own?.kind ?? recognise(file.tensors);
    const description = own ?? (network === kind ? infer?.(file) : undefined);
    if (network !== kind || !description) {
      const found = network ? `a ${network}` : 'no model that is known here';
      throw new CheckpointError(`${path} holds ${found}; a ${kind} is needed here`);
    }
    return await use(file, description as D);
  } finally {
    await file.close();
  }
}
