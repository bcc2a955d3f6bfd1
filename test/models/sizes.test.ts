import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { openEngine } from '../../src/engine/index.js';
import { inspectConfig } from '../../src/inspect/inspect.js';
import { partsTable } from '../../src/inspect/parts.js';
import { totalFlops } from '../../src/models/flops.js';
import { generatorFlops } from '../../src/models/generator/flops.js';
import { Generator } from '../../src/models/generator/generator.js';
import { Discriminator } from '../../src/models/tokenizer/discriminator.js';
import { discriminatorFlops, tokenizerFlops } from '../../src/models/tokenizer/flops.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { Random } from '../../src/random.js';

const configs = fileURLToPath(new URL('../../configs', import.meta.url));
const inspect = (name: string) => inspectConfig(loadConfig(`${configs}/${name}.yaml`, []));
const parts = (name: string) => inspect(name).parts;

it('the published configs have the published numbers of parameters', () => {
  const sizes = (name: string) => parts(name).map((part) => [part.name, part.parameters]);
  expect(sizes('tokenizer')).toEqual(
    expect.arrayContaining([
      ['encoder', 86_079_008],
      ['decoder', 303_479_564],
      ['tokenizer, stage 2', 389_899_308],
    ]),
  );
  expect(sizes('alitok_b')).toContainEqual(['generator', 177_048_064]);
  expect(sizes('alitok_l')).toContainEqual(['generator', 317_851_648]);
  expect(sizes('alitok_xl')).toContainEqual(['generator', 662_141_696]);
});

it.each(readdirSync(configs))('the sizes in the comments of configs/%s are its own', (file) => {
  const text = readFileSync(`${configs}/${file}`, 'utf8').replace(/\n# /g, ' ');
  const { lines, parts } = inspect(file.replace('.yaml', ''));
  const counts = parts.map(({ parameters }) => parameters.toLocaleString('en-US'));
  for (const [count] of text.matchAll(/\d{1,3}(,\d{3}){2,}/g)) expect(counts).toContain(count);
  for (const [, tokens] of text.matchAll(/([\d,]+) tokens an image/g))
    expect(new Map(lines).get('tokens')).toMatch(`${tokens.replace(',', '')} an image`);
});

it('the parts of a model cover all its parameters and operations exactly once', () => {
  const rows = parts('alitok_b');
  rows.forEach((part, i) => {
    const end = rows.findIndex(({ depth }, j) => j > i && depth <= part.depth);
    const below = rows
      .slice(i + 1, end < 0 ? undefined : end)
      .filter(({ depth }) => depth === part.depth + 1);
    if (below.length === 0) return;
    expect(below.reduce((sum, one) => sum + one.parameters, 0)).toBe(part.parameters);
    expect(below.reduce((sum, one) => sum + one.operations, 0)).toBe(part.operations);
  });
  const [head, rule, ...lines] = partsTable(rows);
  expect(Math.max(...[head, ...lines].map((line) => line.length))).toBe(rule.length);
  expect(rule.length).toBeLessThanOrEqual(100);
});

/** Multiplications and additions of the products and convolutions that a function runs. */
async function counted(run: () => tf.Tensor): Promise<number> {
  const { kernels } = await tf.profile(() => tf.tidy(() => [run()]));
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  return kernels.reduce((sum, { name, inputShapes, outputShapes }) => {
    const [a, b] = inputShapes as number[][];
    const out = outputShapes[0];
    if (name === 'BatchMatMul' || name === '_FusedMatMul')
      return sum + 2 * size(out) * (size(a) / size(out.slice(0, -1))); // each output is the product of a row of a and a column of b
    if (name === 'Conv2D') return sum + 2 * size(out) * size(b.slice(0, 3));
    if (name === 'DepthwiseConv2dNative') return sum + 2 * size(out) * size(b.slice(0, 2));
    return sum;
  }, 0);
}

beforeAll(async () => {
  await openEngine('cpu'); // uses only tfjs's own kernels, which the profile lists
});

const TINY = {
  image_size: 32,
  patch_size: 8,
  codebook_size: 24,
  token_size: 6,
  encoder: { width: 16, layers: 2, heads: 2 },
  decoder: { width: 24, layers: 3, heads: 2, class_tokens: 3 },
  l2_normalize: false,
};

it.each([
  [1, 'vq', {}],
  [2, 'vq', {}],
  [1, 'fsq', { fsq_levels: [2, 3, 4], token_size: 3 }],
  [1, 'simvq', {}],
] as const)(
  'the counted operations of the tokenizer of stage %i with %s are right',
  async (stage, quantizer, settings) => {
    const config = { ...TINY, quantizer, ...settings };
    const tokenizer = new Tokenizer(config, stage);
    tokenizer.parameters.initialize(Random.of(0, 'test'));
    const images = tf.zeros([1, 32, 32, 3]) as tf.Tensor4D;
    expect(await counted(() => tokenizer.forward(images).image)).toBe(
      totalFlops(tokenizerFlops(config, stage)),
    );
  },
);

it('the counted operations of the generator are right', async () => {
  const config = { width: 32, layers: 2, heads: 2, classes: 3, codebook_size: 24, prefix_tokens: 5, grid: 4 };
  const generator = new Generator(config);
  generator.parameters.initialize(Random.of(0, 'test'));
  const codes = tf.zeros([1, 21], 'int32') as tf.Tensor2D;
  const forward = () => generator.forward(tf.tensor1d([25], 'int32'), codes);
  expect(await counted(forward)).toBe(totalFlops(generatorFlops(config)));
});

it('the counted operations of the discriminator are right', async () => {
  const config = { hidden_channels: 32, stages: 2 };
  const discriminator = new Discriminator(config);
  discriminator.parameters.initialize(Random.of(0, 'test'));
  const images = tf.zeros([1, 20, 20, 3]) as tf.Tensor4D;
  expect(await counted(() => discriminator.forward(images))).toBe(totalFlops(discriminatorFlops(config, 20)));
});
