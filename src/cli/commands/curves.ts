import type { Command } from 'commander';
import { action, type Invocation } from '../base/command.js';
import { examples, outFile } from '../base/options.js';

async function run({ args, options }: Invocation<{ out: string }>): Promise<void> {
  const { drawRunCurves } = await import('../../report/run-curves.js');
  const { runFolders } = await import('../../report/run-folders.js');
  await drawRunCurves((args[0] as string[]).flatMap(runFolders), options.out);
  console.log(`curves in ${options.out}`);
}

export function register(program: Command): void {
  program
    .command('curves')
    .description('draw the loss and quality of training runs as a picture')
    .argument('<runs...>', 'run folders')
    .addOption(outFile('the PNG file to write', 'curves.png'))
    .addHelpText('after', examples([['alitok curves runs/tokenizer runs/ar -o curves.png', 'several runs']]))
    .action(action(run));
}
