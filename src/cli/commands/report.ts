import type { Command } from 'commander';
import { action, type Invocation } from '../base/command.js';
import { examples, outFile } from '../base/options.js';

interface Options {
  out: string;
  evaluation: string[];
}

async function run({ args, options, log }: Invocation<Options>): Promise<void> {
  const { writeReport } = await import('../../report/write-report.js');
  const { out, evaluation: evaluations } = options;
  const problems = await writeReport({ runs: args[0] as string[], evaluations, out });
  for (const problem of problems) log.warn(problem);
  console.log(`report in ${out}`);
}

export function register(program: Command): void {
  program
    .command('report')
    .description('write an HTML page about training runs: curves, pictures, evaluations, configs, versions')
    .argument('<runs...>', 'run folders, shown side by side')
    .addOption(outFile('the HTML file to write', 'report.html'))
    .option('--evaluation <file...>', 'results of `alitok eval -o` besides those in RUN/evaluations/', [])
    .addHelpText(
      'after',
      examples([
        ['alitok report runs/tokenizer', 'both stages of a tokenizer'],
        ['alitok report runs/b runs/l -o compare.html', 'two runs side by side'],
      ]),
    )
    .action(action(run));
}
