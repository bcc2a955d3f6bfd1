import type { z } from 'zod';
import { CheckpointError, option } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { type Saved, saveParameters } from '../nn/parameters.js';
import { verifyFile } from '../run/checksums.js';
import { checkDescription, type ModelDescription, metadataOf, readDescription } from './description.js';
import { recognise } from './infer.js';
import { openTensorFile } from './open.js';

/** Writes parameters under their checkpoint names as float32, with the description in the metadata. */
export async function saveModel(
  path: string,
  parameters: Iterable<Saved>,
  description: ModelDescription,
): Promise<void> {
  await saveParameters(path, parameters, metadataOf(description));
}

/** Called with what a user should know about a file that is being read. */
export type Say = (message: string) => void;

/** Tells the user which of a file's several sets of weights is taken, and how to take another. */
export function sayChoice({ path, choice }: TensorFile, say?: Say): void {
  if (!choice) return;
  const { taken, others } = choice;
  say?.(
    `${path} has weights under ${[taken, ...others].join(', ')}; those under ${taken} are taken, ${path}#${others[0]} takes others`,
  );
}

/** The error for a file that holds another model than the one that is needed. */
export function anotherModel(path: string, found: string | undefined, wanted: string): CheckpointError {
  const article = (name: string) =>
    /[a-z]s$/.test(name) ? name : `${/^[AEIO]/i.test(name) ? 'an' : 'a'} ${name}`;
  const holds = found === undefined ? 'no model that is known here' : article(found);
  const remedy =
    found === 'adapters' && wanted === 'generator'
      ? `: sample with ${option('lora')}, beside the generator that they adapt; training with generator_training.lora.merge=true saves whole generators`
      : '';
  return new CheckpointError(
    `${path} holds ${holds}; ${article(wanted)} ${/[a-z]s$/.test(wanted) ? 'are' : 'is'} needed here${remedy}`,
  );
}

/** A kind of model, to open a file of it. */
export interface ModelKind<D extends ModelDescription> {
  kind: D['kind'];
  /** What its descriptions must be. */
  schema: z.ZodType;
  /** Describes third-party files, which hold tensors alone, from the tensors. */
  infer?: (file: TensorFile) => D;
}

/**
 * Opens a model file of one kind, passes it on with its description, and closes it afterwards. `say` is told which weights
 * are taken of several.
 * @throws CheckpointError if it is not such a file
 */
export async function withModel<D extends ModelDescription, T>(
  path: string,
  { kind, schema, infer }: ModelKind<D>,
  use: (file: TensorFile, description: D) => Promise<T>,
  say?: Say,
): Promise<T> {
  await verifyFile(path);
  const file = await openTensorFile(path);
  try {
    const own = readDescription(file);
    const network = own === undefined ? recognise(file.tensors) : kindIn(own);
    if (own !== undefined && network === undefined) checkDescription(file, schema, own); // throws: it has no kind
    if (network !== kind) throw anotherModel(path, network, kind);
    const description = own === undefined ? infer?.(file) : (checkDescription(file, schema, own) as D);
    if (!description) throw anotherModel(path, undefined, kind);
    sayChoice(file, say);
    return await use(file, description);
  } finally {
    await file.close();
  }
}

/** The kind of model that a description, not checked yet, is about. */
function kindIn(description: unknown): string | undefined {
  const { kind } = (description ?? {}) as { kind?: unknown };
  return typeof kind === 'string' ? kind : undefined;
}
