import type { Command } from 'commander';
import type { Config } from '../../config/schema.js';
import {
  action,
  type ConfigOptions,
  type Invocation,
  openJob,
  type ResumeFlags,
  readConfig,
  readResume,
  resolveInvocation,
  withResume,
} from '../base/command.js';
import {
  choice,
  dataOption,
  dryRunOption,
  emptyClassesOption,
  examples,
  type ImageFlags,
  initOption,
  maxPixelsOption,
  required,
  runOption,
  withConfig,
} from '../base/options.js';

interface Options extends ConfigOptions, ImageFlags, ResumeFlags {
  data?: string;
  validation?: string;
  run: string;
  stage: '1' | '2' | 'all';
  from?: string;
  init?: string;
  dryRun?: boolean;
}

/** The config, which leaves sizes and the kind of prefix to the weights that it starts from. */
async function configFrom(init: string, invocation: Invocation<Options>): Promise<Config> {
  const { defaultsFrom, keepPrefix } = await import('../../train/tokenizer/init.js');
  const { tokenizer } = await defaultsFrom(init);
  const values = { tokenizer: { ...tokenizer, prefix_tokens: null } };
  const { config, sourceOf } = await resolveInvocation(invocation, { from: `--init ${init}`, values });
  const set = sourceOf(['tokenizer', 'prefix_tokens']) !== undefined;
  return set ? config : keepPrefix(config, tokenizer);
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { options, args, log } = invocation;
  const overrides = args.at(-1) as string[];
  if (options.data !== undefined) overrides.push(`data.train=${JSON.stringify(options.data)}`);
  if (options.validation !== undefined)
    overrides.push(`data.validation=${JSON.stringify(options.validation)}`);
  const { run, from, init, dryRun, maxPixels, allowEmptyClasses } = options;
  const config = await (init === undefined ? readConfig(invocation) : configFrom(init, invocation));
  const { trainTokenizer } = await import('../../train/tokenizer/train.js');
  const stages = options.stage === 'all' ? ([1, 2] as const) : ([Number(options.stage) as 1 | 2] as const);
  const images = { maxPixels, allowEmptyClasses };
  const wanted = { config, run, stages, from, init, images, ...readResume(options) };
  if (!dryRun) return trainTokenizer(wanted, await openJob(invocation, { shared: true }));
  const { dryRun: rehearse } = await import('../base/dry-run.js');
  await rehearse(log, async (runner) => trainTokenizer(wanted, await openJob(invocation), runner));
}

export function register(program: Command): void {
  withResume(withConfig(program.command('train-tokenizer'), 'tokenizer.image_size=128'))
    .description('train a tokenizer: stage 1 with the causal decoder, stage 2 with the bidirectional one')
    .addOption(
      dataOption('training images: a folder, with or without class folders, or .tar files (sets data.train)'),
    )
    .option('--validation <path>', 'held-out images for previews, in the same form (sets data.validation)')
    .addOption(required(runOption('folder for the runs stage1 and stage2')))
    .addOption(choice('--stage <stage>', 'which stage to train', ['1', '2', 'all'], 'all'))
    .option('--from <path>', 'stage-1 run or file that stage 2 starts from (default: stage1 of --run)')
    .addOption(initOption('tokenizer'))
    .addOption(maxPixelsOption())
    .addOption(emptyClassesOption())
    .addOption(dryRunOption())
    .addHelpText(
      'after',
      examples([
        ['alitok train-tokenizer -c configs/cifar10.yaml -d cifar10/train -r runs/tokenizer', 'both stages'],
        [
          'alitok train-tokenizer -c configs/cifar10.yaml -d cifar10/train -r runs/tokenizer --resume',
          'continue after an interruption',
        ],
        [
          'alitok train-tokenizer -d photos -r runs/t tokenizer.image_size=128 tokenizer_training.batch_size=16',
          'the published recipe with other values',
        ],
        [
          'alitok train-tokenizer -c configs/finetune.yaml --init AliTok.pth --stage 2 -d photos -r runs/t',
          "fine-tune the published tokenizer's decoder",
        ],
      ]),
    )
    .action(action(run));
}
