import { z } from 'zod';
import type { TensorFile } from '../formats/tensor-file.js';
import { checkDescription, type ModelDescription, readDescription } from './description.js';
import { featureNetworkDescription } from './feature-network.js';
import { generatorDescription } from './generator.js';
import { recognise } from './infer.js';
import { adapterDescription } from './lora.js';
import { openTensorFile } from './open.js';
import { tokenizerDescription } from './tokenizer.js';

/** The descriptions of all kinds of models. */
const descriptions = z.discriminatedUnion('kind', [
  tokenizerDescription,
  generatorDescription,
  adapterDescription,
  featureNetworkDescription,
]);

/**
 * The description in a model file's metadata, of any kind; undefined if there is none.
 * @throws CheckpointError if it is damaged
 */
export function describe(file: TensorFile): ModelDescription | undefined {
  const description = readDescription(file);
  return description === undefined ? undefined : checkDescription(file, descriptions, description);
}

/** What the model file at `path` holds: a kind of `describe`, a network of `recognise`, or undefined for anything else. */
export async function kindOf(path: string): Promise<string | undefined> {
  const file = await openTensorFile(path);
  try {
    return describe(file)?.kind ?? recognise(file.tensors);
  } finally {
    await file.close();
  }
}
