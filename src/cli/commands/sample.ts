import type { Command } from 'commander';
import type { WeightKind } from '../../engine/ops/index.js';
import { action, type Invocation, openJob } from '../base/command.js';
import {
  countOption,
  examples,
  generatorOption,
  loraOption,
  outFolder,
  required,
  tokenizerOption,
  weightsOption,
  wholeNumber,
} from '../base/options.js';
import { readSampling, type SamplingFlags, withSampling } from '../base/sampling.js';

interface Options extends SamplingFlags {
  generator: string;
  tokenizer: string;
  lora?: string;
  out: string;
  classes?: string;
  classNames?: string;
  perClass: number;
  count?: number;
  png: boolean;
  npzOnly?: boolean;
  weights: WeightKind;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { options } = invocation;
  const { generator, tokenizer, lora, classes, classNames, perClass, count, out, npzOnly, weights } = options;
  const png = options.png && !npzOnly;
  const images = count === undefined ? { perClass } : { count };
  const settings = await readSampling(invocation);
  const { sampleImages } = await import('../../sample/sample-images.js');
  const job = await openJob(invocation, { shared: true });
  const made = await sampleImages(
    { generator, tokenizer, lora, classes, classNames, images, out, png, grid: !npzOnly, weights, settings },
    job,
  );
  if ((job.group?.rank ?? 0) > 0) return;
  console.log(`${made} images in ${out}: ${npzOnly ? '' : 'grid.png, '}samples.npz${png ? ', images/' : ''}`);
}

export function register(program: Command): void {
  const command = program
    .command('sample')
    .description('sample images from a generator')
    .addOption(required(generatorOption()))
    .addOption(required(tokenizerOption('the tokenizer whose codes the generator was trained on')))
    .addOption(loraOption())
    .addOption(required(outFolder('folder for grid.png, samples.npz (ADM layout), samples.json and images/')))
    .option(
      '--classes <list>',
      'comma-separated class indices or names; none: images without a class (default: all classes)',
    )
    .option('--class-names <file>', 'names of the classes, one a line (default: those of the training data)')
    .option('--per-class <n>', 'images of each class', wholeNumber(1), 8)
    .addOption(countOption('images in all, of the classes in turn').conflicts('perClass'))
    .option('--no-png', 'do not write single images to images/')
    .option('--npz-only', 'write samples.npz and samples.json only');
  withSampling(command)
    .addOption(weightsOption())
    .addHelpText(
      'after',
      examples([
        ['alitok sample -g runs/ar -t runs/tokenizer -o samples', '8 images of each class'],
        [
          'alitok sample -g runs/ar -t runs/tokenizer -o cats --classes cat,5 --per-class 20 --temperature 0.9',
          'two classes',
        ],
        ['alitok sample -g runs/ar -t runs/tokenizer -o any --classes none', 'images of no particular class'],
        [
          'alitok sample -g alitok_b.bin -t AliTok.pth -o eval -n 50000 --npz-only',
          'the images of the published evaluation; the same command continues after an interruption',
        ],
      ]),
    )
    .action(action(run));
}
