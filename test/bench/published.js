// Writes a tokenizer and a generator at full size with synthetic weights, of the published models as AliTok.pth and
// alitok_b.bin, or of a config; encodes and decodes a drawn picture, and samples. Prints times and peak memory. Needs 2.3 GB of
// disk, 4.4 GB for XL.
//   node test/bench/published.js [alitok_b | alitok_l | alitok_xl | FILE.yaml] [--engine libtorch] [--folder /tmp/published] [--count 1]
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadGenerator } from '../../dist/checkpoint/generator.js';
import { loadConfig } from '../../dist/config/load.js';
import { publishedModels } from '../../dist/config/published.js';
import { openEngine } from '../../dist/engine/index.js';
import { writePytorch } from '../../dist/formats/pytorch/write.js';
import { Generator } from '../../dist/models/generator/generator.js';
import { tokenizerGeometry } from '../../dist/models/geometry.js';
import { Tokenizer } from '../../dist/models/tokenizer/tokenizer.js';
import { drawPictures } from '../../dist/quickstart/pictures.js';
import { alitok, report, seconds } from './program.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    engine: { type: 'string', default: 'libtorch' },
    folder: { type: 'string', default: '/tmp/published' },
    count: { type: 'string', default: '1' },
  },
});
const { engine, folder, count } = values;
const [name = 'alitok_b'] = positionals;

/** Element i of the j-th name in order of code points: a hash of i and seed + j, uniform in [−1, 1), scaled. */
function formulaWeights(shape, parameter, seed) {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const vector = shape.length === 1;
  const [scale, offset] = vector
    ? [0.1, parameter.endsWith('bias') ? 0 : 1]
    : [Math.fround(Math.sqrt((shape.length === 4 ? 6 : 3) / (data.length / shape[0]))), 0];
  const start = Math.imul(seed, 0x9e3779b1);
  for (let i = 0; i < data.length; i++) {
    let h = (i + start) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h = (h ^ (h >>> 16)) >>> 0;
    data[i] = Math.fround(h / 2 ** 31 - 1) * scale + offset;
  }
  return data;
}

async function write(path, parameters, seed) {
  const sorted = [...parameters].sort((a, b) => (a.name < b.name ? -1 : 1));
  const tensors = sorted.map(({ name, shape }, j) => ({
    name,
    dtype: 'F32',
    shape,
    data: () => formulaWeights(shape, name, seed + j),
  }));
  const began = performance.now();
  await writePytorch(path, tensors);
  report(`write ${path}`, `${statSync(path).size} bytes, ${seconds(began)}`);
}

mkdirSync(folder, { recursive: true });
const own = /\.ya?ml$/.test(name);
const config = own ? loadConfig(name) : publishedModels().get(name);
const { grid, prefix_tokens } = tokenizerGeometry(config.tokenizer);
const { width, layers, heads, classes } = config.generator;
const { codebook_size, image_size } = config.tokenizer;
const sizes = { width, layers, heads, classes, codebook_size, prefix_tokens, grid };
const file = (suffix) => join(folder, `${own ? config.name : name}${suffix}`);
const [tokenizer, generator] = [own ? file('_tokenizer.pth') : join(folder, 'AliTok.pth'), file('.bin')];
await openEngine(engine);
await write(tokenizer, new Tokenizer(config.tokenizer, 2).parameters, 1);
await write(generator, new Generator(sizes).parameters, 1000);

const began = performance.now();
const { model } = await loadGenerator(generator, sizes);
report(`load ${generator}`, seconds(began));
model.dispose();

const pictures = { folder: join(folder, `pictures-${image_size}`), size: image_size, perClass: 1, seed: 1 };
const images = await drawPictures({ ...pictures, split: 'train' });
await alitok(['inspect', generator]);
const out = join(folder, `${own ? config.name : name}-images`);
const encoded = ['--tokenizer', tokenizer, '-d', images, '--count', '1', '-o', out];
await alitok(['reconstruct', '--engine', engine, ...encoded]);
const paths = ['-g', generator, '--tokenizer', tokenizer, '-o', out];
await alitok(['sample', '--engine', engine, ...paths, '--count', count, '--npz-only']);
