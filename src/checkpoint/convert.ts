import { overridesFor } from '../config/compare.js';
import { loadConfig } from '../config/load.js';
import { CheckpointError, ConfigError } from '../errors.js';
import { refuseForeign } from '../files/mark.js';
import { writePytorch } from '../formats/pytorch/write.js';
import { writeSafetensors } from '../formats/safetensors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { Generator } from '../models/generator/generator.js';
import { tokenizerGeometry } from '../models/geometry.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { resolveModel } from '../run/layout.js';
import { type ModelDescription, metadataOf } from './description.js';
import { describeGenerator, type GeneratorDescription, inferGenerator } from './generator.js';
import { recognise } from './infer.js';
import { describe } from './kinds.js';
import { type Say, sayChoice } from './model-file.js';
import { openTensorFile } from './open.js';
import {
  describeTokenizer,
  inferTokenizer,
  type TokenizerDescription,
  tokenizerTensors,
} from './tokenizer.js';

export interface ConvertOptions {
  /** Checkpoint file or run folder. */
  source: string;
  /** File to write; its suffix names the format: .safetensors, or .pth, .pt and .bin for PyTorch's. */
  target: string;
  /** The model's config file and overrides, for files whose tensors alone do not show its sizes. */
  config?: { file?: string; overrides: readonly string[] };
  /** Is told which weights are taken of several. */
  say?: Say;
}

/** Writes the tensors of a checkpoint in another format, one in memory at a time; returns their number. */
export async function convert({ source, target, config, say }: ConvertOptions): Promise<number> {
  const write = writerOf(target);
  await refuseForeign(target);
  const file = await openTensorFile(await resolveModel(source));
  try {
    sayChoice(file, say);
    const description = config ? describeBy(file, config) : (describe(file) ?? describeByTensors(file));
    const tensors = [...file.tensors].map(([name, { dtype, shape }]) => ({
      name,
      dtype,
      shape,
      data: () => file.read(name),
    }));
    await write(target, tensors, description ? metadataOf(description) : file.metadata);
    return tensors.length;
  } finally {
    await file.close();
  }
}

function writerOf(target: string) {
  if (target.endsWith('.safetensors')) return writeSafetensors;
  if (/\.(pth|pt|bin)$/.test(target)) return writePytorch;
  throw new ConfigError(`${target}: name a file that ends in .safetensors, .pth, .pt or .bin`);
}

/** Describes a third-party file by its tensors, checked against the model; undefined for networks other than our models. */
function describeByTensors(file: TensorFile): ModelDescription | undefined {
  const network = recognise(file.tensors);
  if (network === 'generator') return checkedGenerator(file, describeGenerator(file));
  if (network === 'tokenizer') return checkedTokenizer(file, describeTokenizer(file));
  return undefined;
}

/**
 * Describes a file by the user's config; without a config file the overrides change what the file shows.
 * @throws CheckpointError where the tensors do not fit it
 */
function describeBy(
  file: TensorFile,
  { file: path, overrides }: NonNullable<ConvertOptions['config']>,
): ModelDescription {
  const network = recognise(file.tensors);
  const configOver = (shown: readonly string[]) =>
    loadConfig(path, path === undefined ? [...shown, ...overrides] : overrides);
  const defaults = loadConfig(undefined);
  if (network === 'tokenizer') {
    const own = describe(file);
    const { stage, tokenizer: sizes } =
      own?.kind === 'tokenizer' ? (own as TokenizerDescription) : inferTokenizer(file);
    const { tokenizer } = configOver(overridesFor('tokenizer', sizes, defaults.tokenizer));
    return checkedTokenizer(file, { kind: 'tokenizer', stage, tokenizer });
  }
  if (network === 'generator') {
    const { prefix_tokens: _, grid: __, codebook_size: codes, ...sizes } = inferGenerator(file);
    const { generator, tokenizer, sample } = configOver([
      ...overridesFor('generator', sizes, defaults.generator),
      `tokenizer.codebook_size=${codes}`,
    ]);
    const { codebook_size, grid, prefix_tokens } = tokenizerGeometry(tokenizer);
    const { width, layers, heads, classes } = generator;
    return checkedGenerator(file, {
      kind: 'generator',
      generator: { width, layers, heads, classes, codebook_size, prefix_tokens, grid },
      classNames: [],
      sample,
    });
  }
  throw new CheckpointError(`${file.path} is no tokenizer and no generator; convert it without a config`);
}

function checkedTokenizer(file: TensorFile, description: TokenizerDescription): TokenizerDescription {
  const { tokenizer, stage } = description;
  new Tokenizer(tokenizer, stage).parameters.check(file, tokenizerTensors(stage));
  return description;
}

function checkedGenerator(file: TensorFile, description: GeneratorDescription): GeneratorDescription {
  new Generator(description.generator).parameters.check(file);
  return description;
}
