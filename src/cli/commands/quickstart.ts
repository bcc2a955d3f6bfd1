import type { Command } from 'commander';
import { action, examples, type Invocation, openJob } from '../base/command.js';

async function run(invocation: Invocation<{ out: string }>): Promise<void> {
  const { out } = invocation.options;
  const { quickstart } = await import('../../quickstart/quickstart.js');
  const job = await openJob(invocation);
  const results = await quickstart(out, invocation.args.at(-1) as string[], job);
  const width = Math.max(...results.map(([what]) => what.length));
  console.log(`\n${results.map(([what, value]) => `  ${what.padEnd(width)}  ${value}`).join('\n')}\n`);
  console.log('Look at');
  const pictures: [string, string][] = [
    ['reconstructions/pairs.png', 'held-out pictures beside their reconstructions'],
    ['samples/grid.png', 'sampled pictures, with the class that was asked for'],
    ['curves.png', 'loss and quality during training'],
  ];
  for (const [file, what] of pictures) console.log(`  ${out}/${file}  ${what}`);
}

export function register(program: Command): void {
  program
    .command('quickstart')
    .description('see the whole pipeline work on pictures that it draws itself, in a few minutes')
    .argument('[overrides...]', 'config values, such as generator_training.steps=100')
    .option(
      '-o, --out <folder>',
      'gets everything; an earlier quickstart there is replaced',
      'runs/quickstart',
    )
    .addHelpText(
      'after',
      examples([['alitok quickstart', 'draw, train, sample and evaluate in runs/quickstart']]),
    )
    .action(action(run));
}
