import { type GeneratorDescription, inferGenerator, publishedGenerator } from '../checkpoint/generator.js';
import { recognise } from '../checkpoint/infer.js';
import { describe } from '../checkpoint/kinds.js';
import { type AdapterDescription, adapterParameters } from '../checkpoint/lora.js';
import { checkNetwork, NETWORK_FILES } from '../checkpoint/networks.js';
import { openTensorFile } from '../checkpoint/open.js';
import { inferTokenizer, type TokenizerDescription, tokenizerTensors } from '../checkpoint/tokenizer.js';
import { overridesFor } from '../config/compare.js';
import { publishedModels } from '../config/published.js';
import type { Config } from '../config/schema.js';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { Generator } from '../models/generator/generator.js';
import {
  type GeneratorGeometry,
  type TokenizerGeometry,
  type TransformerSize,
  tokenizerGeometry,
} from '../models/geometry.js';
import { quantizerText } from '../models/tokenizer/quantizers/index.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { resolveModel } from '../run/layout.js';
import { sizeOf } from '../shapes.js';
import { counted, type NameValue } from '../text.js';
import { openTokenCache } from '../tokens/cache.js';
import { discriminatorParts, generatorParts, type Part, tokenizerParts } from './parts.js';

/** Rows of a table: what, and how much. */
export type Lines = NameValue[];

const grouped = (n: number) => n.toLocaleString('en-US');

/** The description of a config or file, and the parts of its models. */
export interface Inspection {
  lines: Lines;
  parts: Part[];
}

/** Describes a config: the parameters and operations of its models; allocates nothing. */
export function inspectConfig(config: Config): Inspection {
  const geometry = tokenizerGeometry(config.tokenizer);
  const { grid, prefix_tokens } = geometry;
  const { image_size, patch_size, codebook_size, token_size } = config.tokenizer;
  const { width, layers, heads, classes } = config.generator;
  return {
    lines: [
      ['image', `${image_size} × ${image_size} px, patches of ${patch_size}`],
      ['tokens', `${tokensText(geometry)}; ${codebook_size} codes of ${token_size}`],
      ['quantizer', quantizerText(config.tokenizer)],
    ],
    parts: [
      ...tokenizerParts(config.tokenizer, 1),
      ...tokenizerParts(config.tokenizer, 2),
      ...discriminatorParts(config.discriminator, image_size),
      ...generatorParts({ width, layers, heads, classes, codebook_size, prefix_tokens, grid }),
    ],
  };
}

/** Describes a model file, run folder, token cache or other file of tensors. */
export async function inspectFile(path: string): Promise<Inspection> {
  const file = await openTensorFile(await resolveModel(path));
  try {
    if (file.tensors.has('codes')) return { lines: await inspectTokens(file.path), parts: [] };
    const sizes = [...file.tensors.values()].map(({ shape }) => sizeOf(shape));
    const dtypes = new Set([...file.tensors.values()].map(({ dtype }) => dtype));
    const { lines, parts } = inspectModel(file);
    return {
      lines: [
        ['file', file.path],
        ...choiceLines(file),
        ...lines,
        ['tensors', `${grouped(sizes.length)} of ${[...dtypes].join(', ')}`],
        ['elements', grouped(sizes.reduce((a, b) => a + b, 0))],
      ],
      parts,
    };
  } finally {
    await file.close();
  }
}

/** Which set of weights is described if a file has several, and how to name the others. */
function choiceLines({ path, choice }: TensorFile): Lines {
  if (!choice) return [];
  const others = choice.others.map((key) => `${path}#${key}`);
  return [['weights', `under ${choice.taken}; others: ${others.join(', ')}`]];
}

/** The kind of a model, its sizes and the config that fits it, from its description or else from its tensors. */
function inspectModel(file: TensorFile): Inspection {
  const description = describe(file);
  const network = description?.kind ?? recognise(file.tensors);
  if (network === 'tokenizer') return inspectTokenizer(file, description as TokenizerDescription | undefined);
  if (network === 'adapters') return inspectAdapters(file, description as AdapterDescription);
  if (network === 'generator') return inspectGenerator(file, description as GeneratorDescription | undefined);
  if (network !== undefined && network in NETWORK_FILES) return inspectNetwork(file, network);
  const lines: Lines = [
    ['kind', network ?? 'tensors without a description'],
    ...Object.entries(description ?? {})
      .filter(([key]) => key !== 'kind')
      .map(([key, value]): [string, string] => [key, JSON.stringify(value)]),
  ];
  return { lines, parts: [] };
}

function inspectTokenizer(file: TensorFile, description?: TokenizerDescription): Inspection {
  const inferred = description ? undefined : inferTokenizer(file);
  const { stage, tokenizer } = description ?? inferred!;
  const unknown = inferred?.unknownHeads ?? [];
  const { parameters, geometry } = new Tokenizer(tokenizer, stage);
  const { image_size, patch_size, codebook_size, token_size } = tokenizer;
  const published = [...publishedModels().values()][0];
  const differing = overridesFor('tokenizer', tokenizer, published.tokenizer).filter(
    (override) => !unknown.some((key) => override.startsWith(key)),
  );
  const lines: Lines = [
    ['kind', `tokenizer, stage ${stage}`],
    ['image', `${image_size} × ${image_size} px, patches of ${patch_size}`],
    ['tokens', `${tokensText(geometry)}; ${codebook_size} codes of ${token_size}`],
    ['quantizer', quantizerText(tokenizer)],
    ['encoder', transformerText(tokenizer.encoder, unknown.includes('tokenizer.encoder.heads'))],
    ['decoder', transformerText(tokenizer.decoder, unknown.includes('tokenizer.decoder.heads'))],
    ['parameters', grouped(parameters.count)],
    ['config', configText('tokenizer', differing)],
    ['tensor names', verdict(() => parameters.check(file, tokenizerTensors(stage)))],
  ];
  return { lines, parts: tokenizerParts(tokenizer, stage) };
}

function inspectGenerator(file: TensorFile, description?: GeneratorDescription): Inspection {
  const generator = description?.generator ?? inferGenerator(file);
  const { parameters, geometry } = new Generator(generator);
  const { width, layers, heads, classes, codebook_size } = generator;
  const sizes = { width, layers, heads, classes };
  const [name, config] = publishedGenerator(generator) ?? [...publishedModels()][0];
  const differing = [
    ...overridesFor('generator', sizes, config.generator),
    ...overridesFor('tokenizer', { codebook_size }, config.tokenizer),
  ];
  const { guidance_scale, guidance_power, seed } = description?.sample ?? config.sample;
  const known = description !== undefined || differing.length === 0;
  const lines: Lines = [
    ['kind', 'generator'],
    ['transformer', transformerText(generator)],
    ['vocabulary', `${grouped(codebook_size)} codes, ${counted(classes, 'class', 'classes')}`],
    ...(description ? ([['tokens', tokensText(geometry)]] satisfies Lines) : []), // no tensor shows them
    ['parameters', grouped(parameters.count)],
    ['config', configText(name, differing)],
    ...(known
      ? ([
          ['sampling', `guidance scale ${guidance_scale}, power ${guidance_power}, seed ${seed}`],
        ] satisfies Lines)
      : []),
    ...(description?.tokenizer ? ([['its tokenizer', description.tokenizer]] satisfies Lines) : []),
    ['tensor names', verdict(() => parameters.check(file))],
  ];
  return { lines, parts: generatorParts(generator) };
}

/** Adapters of a generator, saved apart from it. */
function inspectAdapters(file: TensorFile, description: AdapterDescription): Inspection {
  const { generator, lora, base, tokenizer } = description;
  const { parameters } = new Generator(generator, { lora });
  const adapters = adapterParameters(parameters);
  const lines: Lines = [
    ['kind', 'adapters of a generator (LoRA)'],
    ['rank, alpha', `${lora.rank}, ${lora.alpha}`],
    ['transformer', transformerText(generator)],
    [
      'vocabulary',
      `${grouped(generator.codebook_size)} codes, ${counted(generator.classes, 'class', 'classes')}`,
    ],
    ['parameters', grouped(adapters.count)],
    ['its generator', base],
    ...(tokenizer ? ([['its tokenizer', tokenizer]] satisfies Lines) : []),
    ['tensor names', verdict(() => adapters.check(file))],
  ];
  return { lines, parts: [] };
}

/** A third-party network. */
function inspectNetwork(file: TensorFile, network: string): Inspection {
  const { origin, declare } = NETWORK_FILES[network];
  const lines: Lines = [
    ['kind', `${network}, as ${origin}`],
    ['parameters', grouped(declare().count)],
    ['tensor names', verdict(() => checkNetwork(network, file))],
  ];
  return { lines, parts: [] };
}

function tokensText({ tokens, prefix_tokens, grid }: GeneratorGeometry | TokenizerGeometry): string {
  return `${tokens} an image: ${prefix_tokens} prefix + ${grid}²`;
}

function transformerText({ width, layers, heads }: TransformerSize, unknownHeads = false): string {
  return `width ${width}, ${layers} layers, ${unknownHeads ? 'heads not in the file' : `${heads} heads`}`;
}

function configText(name: string, overrides: readonly string[]): string {
  return `configs/${name}.yaml${overrides.length > 0 ? ` with ${overrides.join(' ')}` : ', as published'}`;
}

/** The result of a check in words. */
function verdict(check: () => void): string {
  try {
    check();
    return 'all names and shapes match';
  } catch (error) {
    if (error instanceof CheckpointError) return error.message;
    throw error;
  }
}

async function inspectTokens(path: string): Promise<Lines> {
  const cache = await openTokenCache(path);
  await cache.close();
  const { images, crops, tokens, classNames, provenance } = cache;
  return [
    ['file', path],
    ['kind', 'token cache'],
    ['images', `${grouped(images)} of ${counted(classNames.length, 'class', 'classes')}`],
    ['codes', `${crops} crops × ${tokens} tokens an image`],
    ...Object.entries(provenance ?? {}).map(([key, value]): [string, string] => [key, String(value)]),
  ];
}
