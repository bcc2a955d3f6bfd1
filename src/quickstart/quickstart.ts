import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { evaluateGeneration, evaluateReconstruction } from '../api/evaluate.js';
import { loadConfig } from '../config/load.js';
import { decodeImage } from '../data/images/decode.js';
import { lockFolder } from '../files/folder-lock.js';
import type { Job } from '../job/job.js';
import { drawRunCurves } from '../report/run-curves.js';
import { stageFolders } from '../run/layout.js';
import { reconstruct } from '../sample/reconstruct.js';
import { sampleImages } from '../sample/sample-images.js';
import { tokenizeDataset } from '../tokens/tokenize-dataset.js';
import { trainFeatures } from '../train/features/train.js';
import { trainGenerator } from '../train/generator/train.js';
import { trainTokenizer } from '../train/tokenizer/train.js';
import { QuickstartFolder } from './folder.js';
import { matchShare } from './picture-match.js';
import { drawPictures, PICTURE_CLASSES, pictureFiles } from './pictures.js';

const CONFIG = fileURLToPath(new URL('../../configs/quickstart.yaml', import.meta.url));
const SEED = 7;
/** Pictures of each class that are drawn. */
const DRAWN = { train: 250, validation: 20 };
/** Images sampled of each class. */
const SAMPLED = 16;

const SPLITS = ['train', 'validation'] as const;
/** The files of steps that Ctrl-C ends at once. */
const PLANNED = [
  ...SPLITS.flatMap((split) => pictureFiles({ perClass: DRAWN[split], split })).map(
    (file) => `pictures/${file}`,
  ),
  'reconstructions/pairs.png',
  'curves.png',
];

/** A row of the table of results. */
type Result = [what: string, value: string];

/** Reads the PNGs that `sampleImages` wrote, in order, with the class in each name. */
async function readSamples(folder: string): Promise<{ images: Uint8Array[]; labels: string[] }> {
  const names = (await readdir(folder)).sort();
  const images = await Promise.all(names.map(async (name) => (await decodeImage(join(folder, name))).data));
  return { images, labels: names.map((name) => name.replace(/^\d+-/, '').replace(/\.png$/, '')) };
}

/**
 * Runs the whole pipeline on pictures that it draws itself: tokenizer, tokens, generator, samples, evaluation.
 * @returns the table of results
 */
export async function quickstart(out: string, overrides: readonly string[], job: Job): Promise<Result[]> {
  const lock = await lockFolder(out);
  try {
    const folder = await QuickstartFolder.open(out, PLANNED);
    return await runSteps(folder, overrides, job);
  } finally {
    await lock.release();
  }
}

async function runSteps(folder: QuickstartFolder, overrides: readonly string[], job: Job): Promise<Result[]> {
  const { reporter } = job;
  const started = performance.now();
  const at = (...names: string[]) => folder.at(...names);
  const config = loadConfig(CONFIG, [
    ...overrides,
    `data.train=${JSON.stringify(at('pictures', 'train'))}`,
    `data.validation=${JSON.stringify(at('pictures', 'validation'))}`,
  ]);
  const size = config.tokenizer.image_size;
  const [train, validation] = [config.data.train!, config.data.validation!];

  reporter.info(`1/7 drawing ${PICTURE_CLASSES.length} classes of pictures`);
  for (const split of SPLITS)
    await drawPictures({ folder: at('pictures'), size, perClass: DRAWN[split], seed: SEED, split });

  reporter.info(
    '2/7 training the tokenizer: stage 1 with the causal decoder, stage 2 with the bidirectional one',
  );
  await folder.step(['tokenizer'], () =>
    trainTokenizer({ config, run: at('tokenizer'), stages: [1, 2], resume: false }, job),
  );
  await reconstruct(
    { tokenizer: at('tokenizer'), folder: validation, count: 48, out: at('reconstructions') },
    job,
  );

  reporter.info('3/7 encoding the pictures as tokens');
  const tokens = at('tokens.safetensors');
  const { crops, batch_size: batchSize } = config.tokenize;
  const tokenized = await folder.step(['tokens.safetensors', 'tokens.safetensors.partial'], () =>
    tokenizeDataset({ tokenizer: at('tokenizer'), folder: train, out: tokens, crops, batchSize }, job),
  );

  reporter.info('4/7 training the generator on the tokens');
  await folder.step(['generator'], () =>
    trainGenerator({ config, run: at('generator'), tokens, tokenizer: at('tokenizer'), resume: false }, job),
  );

  reporter.info('5/7 sampling');
  await folder.step(['samples'], () =>
    sampleImages(
      {
        generator: at('generator'),
        tokenizer: at('tokenizer'),
        images: { perClass: SAMPLED },
        out: at('samples'),
        png: true,
        grid: true,
        weights: 'float32',
        settings: {},
      },
      job,
    ),
  );

  reporter.info('6/7 training a small classifier, whose features the evaluation uses');
  await folder.step(['features'], () => trainFeatures({ config, run: at('features'), resume: false }, job));

  reporter.info('7/7 evaluating');
  const reconstruction = await evaluateReconstruction(
    { tokenizer: at('tokenizer'), folder: validation, features: at('features') },
    reporter,
  );
  const generation = await evaluateGeneration(
    { samples: at('samples', 'samples.npz'), reference: train, features: at('features') },
    reporter,
  );
  const { images, labels } = await readSamples(at('samples', 'images'));
  const match = matchShare(images, labels);
  await drawRunCurves([...stageFolders(at('tokenizer')), at('generator')], at('curves.png'));
  await folder.finish({ reconstruction, generation, match });

  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  return [
    ['held-out pictures, PSNR', `${reconstruction.psnr.toFixed(2)} dB`],
    ['held-out pictures, SSIM', reconstruction.ssim.toFixed(3)],
    ['training pictures, codebook usage', percent(tokenized.usage.used)],
    ['samples with the colour of their class', percent(match.colour)],
    ['samples with the shape of their class', percent(match.shape)],
    ['samples with both', percent(match.both)],
    ['rFID (with features of the small classifier)', reconstruction.rfid!.toFixed(2)],
    ['gFID (with features of the small classifier)', generation.fid.toFixed(2)],
    ['time', `${((performance.now() - started) / 60_000).toFixed(1)} minutes on engine ${job.engine.name}`],
  ];
}
