import type { Config } from '../config/schema.js';
import { type Flops, totalFlops } from '../models/flops.js';
import { generatorFlops } from '../models/generator/flops.js';
import { Generator } from '../models/generator/generator.js';
import type { GeneratorConfig, Stage, TokenizerConfig, TransformerSize } from '../models/geometry.js';
import { Discriminator } from '../models/tokenizer/discriminator.js';
import { discriminatorFlops, tokenizerFlops } from '../models/tokenizer/flops.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { Parameters } from '../nn/parameters.js';
import { counted, formatTable } from '../text.js';

/** A row of a model's table. */
export interface Part {
  name: string;
  /** 0 for a model, more for its parts. */
  depth: number;
  size?: string;
  parameters: number;
  /** Operations of the forward pass of one image; 0 where nothing is multiplied. */
  operations: number;
}

/** The first `depth` parts of a parameter's name: `encoder.transformer` of `encoder.transformer.3.ln_1.bias`. */
const partOf = (name: string, depth: number) => name.split('.').slice(0, depth).join('.');

/**
 * The parts of a model by its parameters' names, down to `depth` levels. `sizes` describes single parts.
 */
function partsOf(
  name: string,
  parameters: Parameters,
  operations: Flops,
  depth: number,
  sizes: Record<string, string> = {},
): Part[] {
  const sum = (prefix: string) => ({
    parameters: [...parameters].reduce(
      (total, p) => total + (!p.buffer && `${p.name}.`.startsWith(prefix) ? p.size : 0),
      0,
    ),
    operations: totalFlops(operations, prefix),
  });
  const rows: Part[] = [{ name, depth: 0, size: sizes[''], ...sum('') }];
  const below = (prefix: string, level: number) => {
    const own = [...parameters].filter((p) => !p.buffer && `${p.name}.`.startsWith(prefix));
    const names = [...new Set(own.map((p) => partOf(p.name, level)))];
    if (level > depth || (names.length === 1 && own.length <= 2)) return;
    for (const part of names) {
      const title = part.split('.').at(-1)!;
      // A layer's own weight and bias are not parts.
      if (/^(weight|bias)$/.test(title)) continue;
      const found = { name: title, depth: level, size: sizes[part], ...sum(`${part}.`) };
      rows.push(found);
      if (!/transformer$/.test(part)) below(`${part}.`, level + 1);
    }
  };
  below('', 1);
  return rows;
}

const transformerSize = ({ width, layers, heads }: TransformerSize) =>
  `${layers} layers, ${heads} heads, width ${width}`;

export function tokenizerParts(config: TokenizerConfig, stage: Stage): Part[] {
  const { encoder, decoder, codebook_size, token_size } = config;
  return partsOf(
    `tokenizer, stage ${stage}`,
    new Tokenizer(config, stage).parameters,
    tokenizerFlops(config, stage),
    2,
    {
      'encoder.transformer': transformerSize(encoder),
      'decoder.transformer': transformerSize(decoder),
      quantize: `${codebook_size} codes of ${token_size}`,
    },
  );
}

export function generatorParts(config: GeneratorConfig): Part[] {
  const { codebook_size, classes } = config;
  return partsOf('generator', new Generator(config).parameters, generatorFlops(config), 1, {
    embeddings: `${codebook_size.toLocaleString('en-US')} codes, ${counted(classes, 'class', 'classes')}`,
    blocks: transformerSize(config),
  });
}

export function discriminatorParts(config: Config['discriminator'], imageSize: number): Part[] {
  return partsOf(
    'discriminator',
    new Discriminator(config).parameters,
    discriminatorFlops(config, imageSize),
    1,
  );
}

/** A count of operations: `12.3 GFLOP`. */
function operationsText(count: number): string {
  if (count === 0) return '';
  const [unit, size] = count >= 1e9 ? ['GFLOP', 1e9] : ['MFLOP', 1e6];
  return `${Number((count / size).toPrecision(3)).toLocaleString('en-US')} ${unit}`;
}

/** The parts of a model as lines of a table. */
export function partsTable(parts: readonly Part[]): string[] {
  const rows = [
    ['part', 'size', 'parameters', 'per image'],
    ...parts.map(({ name, depth, size, parameters, operations }) => [
      `${'  '.repeat(depth)}${name}`,
      size ?? '',
      parameters.toLocaleString('en-US'),
      operationsText(operations),
    ]),
  ];
  const [head, ...body] = formatTable(rows, { right: [2, 3] });
  return [head, '─'.repeat(Math.max(...[head, ...body].map((line) => line.length))), ...body];
}
