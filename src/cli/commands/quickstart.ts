import type { Command } from 'commander';
import { formatTable } from '../../text.js';
import { action, type Invocation, openJob } from '../base/command.js';
import { examples, outFolder } from '../base/options.js';

async function run(invocation: Invocation<{ out: string }>): Promise<void> {
  const { out } = invocation.options;
  const { quickstart } = await import('../../quickstart/quickstart.js');
  const job = await openJob(invocation);
  const results = await quickstart(out, invocation.args.at(-1) as string[], job);
  const indented = (rows: [string, string][]) => formatTable(rows).map((line) => `  ${line}`);
  const pictures: [string, string][] = [
    [`${out}/reconstructions/pairs.png`, 'held-out pictures next to their reconstructions'],
    [`${out}/samples/grid.png`, 'sampled pictures with their classes'],
    [`${out}/curves.png`, 'loss and quality during training'],
  ];
  console.log(['', ...indented(results), '', 'Pictures', ...indented(pictures)].join('\n'));
}

export function register(program: Command): void {
  program
    .command('quickstart')
    .description('run the whole pipeline on pictures that it draws itself, in a few minutes')
    .argument('[overrides...]', 'config values, such as generator_training.steps=100')
    .addOption(outFolder('folder for all results; replaces an earlier quickstart in it', 'runs/quickstart'))
    .addHelpText(
      'after',
      examples([['alitok quickstart', 'draw, train, sample and evaluate in runs/quickstart']]),
    )
    .action(action(run));
}
