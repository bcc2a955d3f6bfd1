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
    batch: { type: 'string', default: '4' },
  },
});
const { engine, folder, batch } = values;
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

const common = ['-c', config, '--engine', engine, '--quiet'];
const one = (section) => [
  `${section}.batch_size=${batch}`,
  `${section}.accumulation=1`,
  `${section}.warmup_steps=0`,
];
const trainAr = (name, ...more) =>
  alitok(
    [
      ...[
        'train-ar',
        ...common,
        '--init',
        join(folder, 'alitok_b.bin'),
        '--tokens',
        join(work, 'tokens.safetensors'),
      ],
      ...['-r', join(work, name), 'generator_training.steps=1', ...one('generator_training'), ...more],
    ],
    `one step of alitok_b.bin, batch ${batch}: ${name}`,
  );
await trainAr('all parameters');
await trainAr('LoRA', 'generator_training.lora={rank: 16, alpha: 32, merge: false}');
for (const stage of [1, 2])
  await alitok(
    [
      ...[
        'train-tokenizer',
        ...common,
        '--init',
        join(folder, 'AliTok.pth'),
        '--stage',
        `${stage}`,
        '-d',
        data,
      ],
      ...['-r', join(work, `stage ${stage}`), ...one('tokenizer_training')],
      `tokenizer_training.stage${stage}.phases=[{ steps: 1, lr: 2.0e-5 }]`,
    ],
    `one step of AliTok.pth, batch ${batch}: stage ${stage}`,
  );
rmSync(work, { recursive: true });
