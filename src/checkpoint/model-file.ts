import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { saveParameters } from '../nn/parameter-file.js';
import type { Parameter } from '../nn/parameters.js';
import { verifyFile } from '../run/checksums.js';
import { parseDescription } from './description.js';
import { recognise } from './infer.js';
import { openTensorFile } from './open.js';

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

/** Hears what a user should know of a file that is read. */
export type Say = (message: string) => void;

/** Says which of several sets of weights is taken, and how another is. */
export function sayChoice({ path, choice }: TensorFile, say?: Say): void {
  if (!choice) return;
  const { taken, others } = choice;
  say?.(
    `${path} has weights under ${[taken, ...others].join(', ')}; those under ${taken} are taken, ${path}#${others[0]} takes others`,
  );
}

/** The description in a model file's metadata, if it has one. Throws CheckpointError if it is not sound. */
export function describe(file: TensorFile): ModelDescription | undefined {
  const text = file.metadata[KEY];
  if (text === undefined) return undefined;
  return parseDescription(file, text) as ModelDescription;
}

function anotherModel(path: string, found: string | undefined, wanted: string): CheckpointError {
  const article = (name: string) =>
    /[a-z]s$/.test(name) ? name : `${/^[AEIO]/i.test(name) ? 'an' : 'a'} ${name}`;
  const holds = found === undefined ? 'no model that is known here' : article(found);
  return new CheckpointError(
    `${path} holds ${holds}; ${article(wanted)} ${/[a-z]s$/.test(wanted) ? 'are' : 'is'} needed here`,
  );
}

/**
 * Opens a model file of one kind and hands it over with its description; closes it afterwards. `infer` describes files
 * that others wrote, which hold tensors alone, from the tensors; `say` hears which weights are taken of several.
 * Throws CheckpointError if it is not such a file.
 */
export async function withModel<D extends ModelDescription, T>(
  path: string,
  kind: D['kind'],
  use: (file: TensorFile, description: D) => Promise<T>,
  infer?: (file: TensorFile) => D,
  say?: Say,
): Promise<T> {
  await verifyFile(path);
  const file = await openTensorFile(path);
  try {
    const own = describe(file);
    const network = own?.kind ?? recognise(file.tensors);
    const description = own ?? (network === kind ? infer?.(file) : undefined);
    if (network !== kind || !description) throw anotherModel(path, network, kind);
    sayChoice(file, say);
    return await use(file, description as D);
  } finally {
    await file.close();
  }
}

/** What the model file at `path` holds: a kind of `describe`, a network of `recognise`, or nothing that is known. */
export async function kindOf(path: string): Promise<string | undefined> {
  const file = await openTensorFile(path);
  try {
    return describe(file)?.kind ?? recognise(file.tensors);
  } finally {
    await file.close();
  }
}

/**
 * Opens a file of a network that others trained, which `recognise` must know by one of `networks`, and hands it over;
 * closes it afterwards. Throws CheckpointError if it is no such file.
 */
export async function withNetwork<T>(
  path: string,
  networks: readonly string[],
  use: (file: TensorFile, network: string) => Promise<T>,
): Promise<T> {
  const file = await openTensorFile(path);
  try {
    const found = recognise(file.tensors);
    if (found === undefined || !networks.includes(found)) throw anotherModel(path, found, networks[0]);
    return await use(file, found);
  } finally {
    await file.close();
  }
}
