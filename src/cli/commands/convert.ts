import type { Command } from 'commander';
import { action, type ConfigOptions, type Invocation } from '../base/command.js';
import { examples } from '../base/options.js';

async function run({ args, options, log }: Invocation<ConfigOptions>): Promise<void> {
  const [source, target, overrides] = args as [string, string, string[]];
  const { convert } = await import('../../checkpoint/convert.js');
  const { enableProdMode } = await import('@tensorflow/tfjs');
  enableProdMode();
  const given = options.config !== undefined || overrides.length > 0;
  const config = given ? { file: options.config, overrides } : undefined;
  const tensors = await convert({ source, target, config, say: log.warn });
  console.log(`${tensors} tensors in ${target}`);
}

export function register(program: Command): void {
  program
    .command('convert')
    .description('write a checkpoint in another format: safetensors, or a file for torch.load')
    .argument(
      '<source>',
      'a .pth, .bin or .safetensors file, or a run folder; FILE#ema for the weights under ema',
    )
    .argument('<target>', 'the file to write: .safetensors, .pth, .pt or .bin')
    .argument('[overrides...]', 'config values, such as tokenizer.encoder.heads=3')
    .option('-c, --config <file>', 'YAML config of the model, if its tensors do not show all of its sizes')
    .addHelpText(
      'after',
      examples([
        ['alitok convert AliTok.pth tokenizer.safetensors', 'a published file'],
        ['alitok convert runs/ar generator.bin', 'the newest checkpoint of a run, for PyTorch'],
      ]),
    )
    .action(action(run));
}
