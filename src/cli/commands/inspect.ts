import type { Command } from 'commander';
import { action, examples, type Invocation } from '../base/command.js';

async function run({ args }: Invocation<object>): Promise<void> {
  const [path, overrides] = args as [string, string[]];
  const { inspectConfig, inspectFile } = await import('../../inspect/inspect.js');
  const { enableProdMode } = await import('@tensorflow/tfjs');
  enableProdMode();
  const { loadConfig } = await import('../../config/load.js');
  const { partsTable } = await import('../../inspect/parts.js');
  const { lines, parts } = /\.ya?ml$/.test(path)
    ? inspectConfig(loadConfig(path, overrides))
    : await inspectFile(path);
  const width = Math.max(...lines.map(([name]) => name.length));
  for (const [name, value] of lines) console.log(`${name.padEnd(width)}  ${value}`);
  if (parts.length > 0) console.log(['', ...partsTable(parts)].join('\n'));
}

export function register(program: Command): void {
  program
    .command('inspect')
    .description(
      'say what a config, checkpoint, run folder or token cache is, and draw its models as a table of parts',
    )
    .argument('<path>', 'a .yaml config, a .safetensors, .pth or .bin file, or a run folder')
    .argument('[overrides...]', 'config values, such as generator.layers=12')
    .addHelpText(
      'after',
      examples([
        ['alitok inspect configs/alitok_b.yaml', 'parameters of the published models'],
        ['alitok inspect runs/tokenizer', 'the newest tokenizer of a run'],
      ]),
    )
    .action(action(run));
}
