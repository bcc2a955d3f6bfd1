import { type Command, InvalidArgumentError, Option } from 'commander';
import type { WeightKind } from '../../engine/ops/index.js';
import { action, examples, type Invocation, openJob, weightsOption, wholeNumber } from '../base/command.js';

interface Options {
  generator: string;
  tokenizer: string;
  out: string;
  classes?: string;
  classNames?: string;
  perClass: number;
  count?: number;
  png: boolean;
  npz?: boolean;
  seed?: number;
  batch?: number;
  guidanceScale?: number;
  guidancePower?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  weights: WeightKind;
}

/** Parses an option that is a number in [minimum, maximum]. */
function number(minimum: number, maximum = Number.POSITIVE_INFINITY) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= minimum && value <= maximum))
      throw new InvalidArgumentError(
        Number.isFinite(maximum)
          ? `It must be from ${minimum} to ${maximum}.`
          : `It must be at least ${minimum}.`,
      );
    return value;
  };
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { options } = invocation;
  const { generator, tokenizer, classes, classNames, perClass, count, out, npz, weights } = options;
  const png = options.png && !npz;
  const images = count === undefined ? { perClass } : { count };
  const { sampleImages } = await import('../../sample/sample-images.js');
  const given = {
    guidance_scale: options.guidanceScale,
    guidance_power: options.guidancePower,
    temperature: options.temperature,
    top_k: options.topK,
    top_p: options.topP,
    seed: options.seed,
    batch_size: options.batch,
  };
  const settings = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const job = await openJob(invocation, { shared: true });
  const made = await sampleImages(
    { generator, tokenizer, classes, classNames, images, out, png, grid: !npz, weights, settings },
    job,
  );
  if ((job.group?.rank ?? 0) > 0) return;
  console.log(`${made} images in ${out}: ${npz ? '' : 'grid.png, '}samples.npz${png ? ', images/' : ''}`);
}

export function register(program: Command): void {
  program
    .command('sample')
    .description('sample images from a generator')
    .requiredOption('-g, --generator <path>', 'generator run, .safetensors or published .bin file')
    .requiredOption(
      '--tokenizer <path>',
      'the tokenizer whose codes it was trained on: run, .safetensors or published .pth file',
    )
    .requiredOption('-o, --out <folder>', 'gets grid.png, samples.npz (ADM layout) and images/')
    .option('--class, --classes <list>', 'comma-separated class indices or names (default: all)')
    .option('--class-names <file>', 'names of the classes, one a line (default: those of the training data)')
    .option('-n, --per-class <n>', 'images of each class', wholeNumber(1), 8)
    .addOption(
      new Option('--count <n>', 'images in all, of the classes in turn')
        .argParser(wholeNumber(1))
        .conflicts('perClass'),
    )
    .option('--no-png', 'no single image files')
    .option('--npz', 'samples.npz alone, and samples.json, which says what it is made of')
    .option(
      '--seed <n>',
      'another seed (default: the one the generator was saved or published with)',
      wholeNumber(0),
    )
    .option('--batch <n>', 'images sampled at once', wholeNumber(1))
    .option('--guidance-scale <s>', 'final guidance scale; 0 for none', number(0))
    .option('--guidance-power <p>', 'how late guidance grows', number(0))
    .option('--temperature <t>', '0 takes the most likely code', number(0))
    .option('--top-k <k>', 'only the k most likely codes; 0 for all', wholeNumber(0))
    .option('--top-p <p>', 'only the most likely codes that reach this probability', number(0, 1))
    .addOption(weightsOption())
    .addHelpText(
      'after',
      examples([
        ['alitok sample -g runs/ar --tokenizer runs/tokenizer -o samples', '8 images of each class'],
        ['alitok sample -g runs/ar --tokenizer runs/tokenizer -o cats --class cat,5 -n 20', 'two classes'],
        [
          'alitok sample -g alitok_b.bin --tokenizer AliTok.pth -o eval --count 50000 --npz',
          'the published evaluation; once more goes on where an interruption stopped it',
        ],
      ]),
    )
    .action(action(run));
}
