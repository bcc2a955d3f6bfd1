import type { Command } from 'commander';
import { action, type Invocation } from '../base/command.js';
import { examples } from '../base/options.js';
import { printTable } from '../base/output.js';

async function run({ args, options }: Invocation<{ resolved?: boolean }>): Promise<void> {
  const [path, overrides] = args as [string, string[]];
  if (options.resolved) {
    const { resolvedYaml } = await import('../../inspect/resolved.js');
    process.stdout.write(resolvedYaml(path, overrides));
    return;
  }
  const { inspectConfig, inspectFile } = await import('../../inspect/inspect.js');
  const { enableProdMode } = await import('@tensorflow/tfjs');
  enableProdMode();
  const { loadConfig } = await import('../../config/load.js');
  const { partsTable } = await import('../../inspect/parts.js');
  const { lines, parts } = /\.ya?ml$/.test(path)
    ? inspectConfig(loadConfig(path, overrides))
    : await inspectFile(path);
  printTable(lines);
  if (parts.length > 0) console.log(['', ...partsTable(parts)].join('\n'));
}

export function register(program: Command): void {
  program
    .command('inspect')
    .description('describe a config, checkpoint, run folder or token cache, and list the parts of its models')
    .argument('<path>', 'a .yaml config, a .safetensors, .pth or .bin file, or a run folder')
    .argument('[overrides...]', 'values for a config, such as generator.layers=12')
    .option(
      '--resolved',
      'print the complete config of a .yaml file or run folder, and where its values come from',
    )
    .addHelpText(
      'after',
      examples([
        ['alitok inspect configs/alitok_b.yaml', 'parameters of the published models'],
        ['alitok inspect runs/tokenizer', 'the newest tokenizer of a run'],
        ['alitok inspect --resolved configs/alitok_b.yaml generator.layers=2', 'every value, with defaults'],
      ]),
    )
    .action(action(run));
}
