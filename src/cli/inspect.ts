import { describe } from '../checkpoint/model-file.js';
import { resolveModel } from '../checkpoint/run-files.js';
import type { Config } from '../config/schema.js';
import { openTokenCache } from '../data/token-cache.js';
import { openSafetensors } from '../formats/safetensors.js';
import { Discriminator } from '../models/discriminator.js';
import { Generator } from '../models/generator.js';
import { type Stage, tokenizerGeometry } from '../models/geometry.js';
import { Tokenizer } from '../models/tokenizer.js';
import type { Parameters } from '../nn/parameters.js';

/** Lines of a table: what, and how much. */
export type Lines = [name: string, value: string][];

const grouped = (n: number) => n.toLocaleString('en-US');

/** Trainable scalars under a prefix of the names. */
function countOf(parameters: Parameters, prefix: string): number {
  return [...parameters].reduce((sum, p) => sum + (!p.buffer && p.name.startsWith(prefix) ? p.size : 0), 0);
}

/** The sizes of a config's models in parameters; nothing is allocated. */
export function inspectConfig(config: Config): Lines {
  const { grid, prefix_tokens, tokens } = tokenizerGeometry(config.tokenizer);
  const { image_size, patch_size, codebook_size, token_size } = config.tokenizer;
  const [stage1, stage2] = ([1, 2] as Stage[]).map(
    (stage) => new Tokenizer(config.tokenizer, stage).parameters,
  );
  const { width, layers, heads, classes } = config.generator;
  const generator = new Generator({ width, layers, heads, classes, codebook_size, prefix_tokens, grid });
  return [
    ['image', `${image_size} × ${image_size} px, patches of ${patch_size}`],
    [
      'tokens',
      `${tokens} an image: ${prefix_tokens} prefix + ${grid}²; ${codebook_size} codes of ${token_size}`,
    ],
    ['encoder', grouped(countOf(stage2, 'encoder.'))],
    ['decoder, stage 1', grouped(countOf(stage1, 'decoder.'))],
    ['decoder, stage 2', grouped(countOf(stage2, 'decoder.'))],
    ['tokenizer, stage 1', grouped(stage1.count)],
    ['tokenizer, stage 2', grouped(stage2.count)],
    ['discriminator', grouped(new Discriminator(config.discriminator).parameters.count)],
    ['generator', grouped(generator.parameters.count)],
  ];
}

/** What a model file, run folder, token cache or other safetensors file is. */
export async function inspectFile(path: string): Promise<Lines> {
  const file = await openSafetensors(await resolveModel(path));
  try {
    if (file.tensors.has('codes')) return await inspectTokens(file.path);
    const shapes = [...file.tensors.values()].map(({ shape }) => shape.reduce((a, b) => a * b, 1));
    const found = describe(file);
    return [
      ['file', file.path],
      ['kind', found?.kind ?? 'tensors without a description'],
      ...Object.entries(found ?? {})
        .filter(([key]) => key !== 'kind')
        .map(([key, value]): [string, string] => [key, JSON.stringify(value)]),
      ['tensors', grouped(shapes.length)],
      ['elements', grouped(shapes.reduce((a, b) => a + b, 0))],
    ];
  } finally {
    await file.close();
  }
}

async function inspectTokens(path: string): Promise<Lines> {
  const cache = await openTokenCache(path);
  await cache.close();
  const { images, crops, tokens, classNames, provenance } = cache;
  return [
    ['file', path],
    ['kind', 'token cache'],
    ['images', `${grouped(images)} of ${classNames.length} classes`],
    ['codes', `${crops} crops × ${tokens} tokens an image`],
    ...Object.entries(provenance ?? {}).map(([key, value]): [string, string] => [key, String(value)]),
  ];
}
