import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { loadGenerator } from '../checkpoint/generator-file.js';
import { fingerprint, loadTokenizer } from '../checkpoint/tokenizer-file.js';
import type { Config } from '../config/schema.js';
import { encodePng } from '../data/image.js';
import { labelledGrid } from '../data/sheets.js';
import type { WeightKind } from '../engine/ops/index.js';
import { CheckpointError, Interrupted } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import { writeNpz } from '../formats/npz.js';
import type { Job } from '../job/job.js';
import type { Generator } from '../models/generator.js';
import { toPixels } from '../models/pixels.js';
import type { Tokenizer } from '../models/tokenizer.js';
import { Random } from '../random.js';
import { className, parseClasses } from './classes.js';
import { packWeights } from './pack-weights.js';
import { sampleCodes, sampleOptions } from './sampler.js';

/** The grid shows at most so many images, the first of each class. */
const GRID_IMAGES = 200;

export interface SampleImagesOptions {
  generator: string;
  tokenizer: string;
  /** Comma-separated class indices or names; all classes if absent. */
  classes?: string;
  perClass: number;
  /** The folder that gets `images/`, `grid.png` and `samples.npz`. */
  out: string;
  /** Whether to write each image as a PNG of its own. */
  png: boolean;
  /** What the generator's weights are kept in; other than float32, samples are other draws. */
  weights: WeightKind;
  /** Replaces single values of the settings the generator was saved with. */
  settings: Partial<Config['sample']>;
}

/**
 * Samples images class by class and writes them: PNGs, a labelled grid, and `arr_0` (N, S, S, 3) uint8 in the layout
 * of the ADM evaluator. Image i depends on the seed, i and its class only. Gives the number of images.
 * @throws CheckpointError where the tokenizer is not the one whose codes the generator models
 */
export async function sampleImages(options: SampleImagesOptions, job: Job): Promise<number> {
  const { out, perClass } = options;
  const { model, classNames, tokenizer: expected, sample } = await loadGenerator(options.generator);
  const tokenizer = await loadTokenizer(options.tokenizer);
  if (expected !== undefined && expected !== (await fingerprint(tokenizer)))
    throw new CheckpointError(
      `${options.generator} models the codes of tokenizer ${expected}, but ${options.tokenizer} is another; name the tokenizer that made its token cache`,
    );
  if (options.weights !== 'float32') {
    const difference = packWeights(model, options.weights);
    job.reporter.info(
      `weights in ${options.weights} move the logits by ${(100 * difference).toPrecision(2)} % of their spread: the images are other draws, close in quality; take float32 for numbers to publish`,
    );
  }
  const classes = parseClasses(options.classes, classNames, model.geometry.classes);
  const labels = classes.flatMap((c) => new Array<number>(perClass).fill(c));
  const settings = { ...(sample as Config['sample']), ...options.settings };
  const size = tokenizer.geometry.image_size;

  const folder = join(out, 'images');
  try {
    await mkdir(options.png ? folder : out, { recursive: true });
  } catch (error) {
    throw outputError(out, error);
  }
  const shownPerClass = Math.max(1, Math.min(perClass, Math.floor(GRID_IMAGES / classes.length)));
  const shown: Uint8Array[] = [];
  const shownLabels: string[] = [];

  async function* pixels(): AsyncGenerator<Uint8Array> {
    for await (const { pixels, start } of batches(model, tokenizer, labels, settings, job)) {
      const bytes = size * size * 3;
      for (let i = 0; i < pixels.length / bytes; i++) {
        const data = pixels.subarray(i * bytes, (i + 1) * bytes);
        const index = start + i;
        const name = className(labels[index], classNames);
        if (index % perClass < shownPerClass && shown.length < GRID_IMAGES) {
          shown.push(data);
          shownLabels.push(name);
        }
        if (!options.png) continue;
        const file = `${String(index).padStart(6, '0')}-${name.replace(/[^\w.-]/g, '_')}.png`;
        await writeFileAtomic(join(folder, file), await encodePng({ width: size, height: size, data }));
      }
      yield pixels;
    }
  }
  const shape = [labels.length, size, size, 3];
  await writeNpz(join(out, 'samples.npz'), [{ name: 'arr_0', dtype: 'u1', shape, data: pixels() }]);
  const columns = shownPerClass * Math.max(1, Math.floor(8 / shownPerClass));
  await writeFileAtomic(
    join(out, 'grid.png'),
    await labelledGrid(shown, { size, columns: Math.min(columns, 16), labels: shownLabels }),
  );
  model.dispose();
  tokenizer.parameters.dispose();
  return labels.length;
}

/** Images of `labels` in order, `batch_size` at a time, as uint8 pixels; `start` is the index of a batch's first. */
async function* batches(
  model: Generator,
  tokenizer: Tokenizer,
  labels: readonly number[],
  settings: Config['sample'],
  { reporter, signal }: Job,
): AsyncGenerator<{ pixels: Uint8Array; start: number }> {
  const steps = model.geometry.tokens;
  const progress = reporter.progress({ label: 'sample', total: labels.length, unit: 'images' });
  try {
    for (let start = 0; start < labels.length; start += settings.batch_size) {
      const own = labels.slice(start, start + settings.batch_size);
      const randoms = own.map((_, i) => Random.of(settings.seed, `image ${start + i}`));
      const onStep = (done: number) => {
        if (signal.aborted) throw new Interrupted('stopped; samples.npz was not written');
        progress.update(start + Math.floor((own.length * done) / steps));
      };
      const codes = await sampleCodes(model, own, sampleOptions(settings), randoms, { onStep });
      const pixels = tf.tidy(() => toPixels(tokenizer.detokenize(codes)));
      codes.dispose();
      progress.update(start + own.length);
      yield { pixels, start };
    }
  } finally {
    progress.stop();
  }
}
