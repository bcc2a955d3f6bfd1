// One training step from the files that published.js writes, at full size: the generator whole and with LoRA, the tokenizer of
// both stages. Prints times and peak memory.
//   node test/bench/published.js && node test/bench/fine-tuning.js [--engine libtorch] [--folder /tmp/published]
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { drawPictures } from '../../dist/quickstart/pictures.js';
import { TokenCacheWriter } from '../../dist/tokens/cache.js';
import { alitok } from './program.js';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'libtorch' },
    folder: { type: 'string', default: '/tmp/published' },
  },
});
const { engine, folder } = values;
const work = mkdtempSync(join(folder, 'fine-tuning-'));
const config = fileURLToPath(new URL('../../configs/finetune.yaml', import.meta.url));

const [images, tokens] = [8, 273];
const cache = await TokenCacheWriter.create(join(work, 'tokens.safetensors'), {
  ...{ images, crops: 1, tokens, codebookSize: 4096, classNames: ['cat', 'dog'] },
  ...{ fingerprint: 'synthetic', preprocessing: 'flip', imageSize: 256, source: 'formula' },
});
for (let i = 0; i < images; i++)
  await cache.append(
    Array.from({ length: tokens }, (_, t) => (i * 1009 + t * 31) % 4096),
    i % 2,
  );
await cache.finish();
const pictures = { folder: work, size: 256, perClass: 1, seed: 1 };
const data = await drawPictures({ ...pictures, split: 'train' });

/** Trains for one step; `batch` images at once. */
function step(title, section, batch, words) {
  const size = [`batch_size=${batch}`, 'accumulation=1', 'warmup_steps=0'].map(
    (value) => `${section}.${value}`,
  );
  const run = ['-r', join(work, title), '-c', config, '--engine', engine, '--quiet'];
  return alitok([...words, ...run, ...size], `one step of ${title}, batch ${batch}`);
}

const [generator, tokenizer] = ['alitok_b.bin', 'AliTok.pth'].map((name) => ['--init', join(folder, name)]);
const trainAr = [
  'train-ar',
  ...generator,
  '--tokens',
  join(work, 'tokens.safetensors'),
  'generator_training.steps=1',
];
await step('alitok_b.bin', 'generator_training', 4, trainAr);
const lora = 'generator_training.lora={rank: 16, alpha: 32, merge: false}';
await step('alitok_b.bin, LoRA', 'generator_training', 4, [...trainAr, lora]);
for (const stage of [2, 1]) {
  const phases = `tokenizer_training.stage${stage}.phases=[{ steps: 1, lr: 2.0e-5 }]`;
  const words = ['train-tokenizer', ...tokenizer, '--stage', `${stage}`, '-d', data, phases];
  await step(`AliTok.pth, stage ${stage}`, 'tokenizer_training', 1, words);
}
rmSync(work, { recursive: true });
