import type { Command } from 'commander';
import {
  action,
  type ConfigOptions,
  choice,
  dryRunOption,
  examples,
  type Invocation,
  openJob,
  readConfig,
  withConfig,
} from '../command.js';

interface Options extends ConfigOptions {
  data?: string;
  validation?: string;
  run: string;
  stage: '1' | '2' | 'all';
  from?: string;
  resume?: boolean;
  dryRun?: boolean;
}

async function run(invocation: Invocation<Options>): Promise<void> {
  const { options, args, log } = invocation;
  const overrides = args.at(-1) as string[];
  if (options.data !== undefined) overrides.push(`data.train=${JSON.stringify(options.data)}`);
  if (options.validation !== undefined)
    overrides.push(`data.validation=${JSON.stringify(options.validation)}`);
  const config = await readConfig(invocation);
  const { trainTokenizer } = await import('../../train/train-tokenizer.js');
  const stages = options.stage === 'all' ? ([1, 2] as const) : ([Number(options.stage) as 1 | 2] as const);
  const { from, resume = false } = options;
  const wanted = { config, run: options.run, stages, resume, from };
  const job = await openJob(invocation);
  if (!options.dryRun) return trainTokenizer(wanted, job);
  const { dryRunner } = await import('../dry-run.js');
  const { run: rehearse, finish } = dryRunner(log);
  await trainTokenizer({ ...wanted, resume: false }, job, rehearse);
  finish();
}

export function register(program: Command): void {
  withConfig(program.command('train-tokenizer'))
    .description('train a tokenizer: stage 1 with the causal decoder, stage 2 with the bidirectional one')
    .option('-d, --data <folder>', 'training images, in class folders or not (sets data.train)')
    .option('--validation <folder>', 'held-out images for previews (sets data.validation)')
    .requiredOption('-r, --run <folder>', 'gets the runs stage1 and stage2')
    .addOption(choice('--stage <stage>', 'which stage to train', ['1', '2', 'all'], 'all'))
    .option('--from <path>', 'stage-1 run or file that stage 2 starts from (default: stage1 of --run)')
    .option('--resume', 'go on from the newest checkpoint')
    .addOption(dryRunOption())
    .addHelpText(
      'after',
      examples([
        ['alitok train-tokenizer -c configs/cifar10.yaml -d cifar10/train -r runs/tokenizer', 'both stages'],
        [
          'alitok train-tokenizer -c configs/cifar10.yaml -d cifar10/train -r runs/tokenizer --resume',
          'go on',
        ],
        [
          'alitok train-tokenizer -d photos -r runs/t tokenizer.image_size=128 tokenizer_training.batch_size=16',
          'the published recipe with other values',
        ],
      ]),
    )
    .action(action(run));
}
