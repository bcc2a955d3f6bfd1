import type { Command } from 'commander';
import { Argument } from 'commander';
import type { CaseName } from '../../bench/cases.js';
import type { WeightKind } from '../../engine/ops/index.js';
import {
  action,
  type ConfigOptions,
  examples,
  type Invocation,
  openJob,
  readConfig,
  weightsOption,
  wholeNumber,
  withConfig,
} from '../command.js';

interface BenchOptions extends ConfigOptions {
  batch: number;
  steps?: number;
  repeats: number;
  json?: boolean;
  weights: WeightKind;
}

// Written out, because their module is too heavy for the help.
const CASES: Record<CaseName, true> = { encode: true, decode: true, train: true, sample: true };

async function run(invocation: Invocation<BenchOptions>): Promise<void> {
  const { batch, steps, repeats, json, weights } = invocation.options;
  const [name] = invocation.args as [CaseName];
  const config = await readConfig(invocation);
  const { engine } = await openJob(invocation);
  const { openCase } = await import('../../bench/cases.js');
  const { measure, measureLimits } = await import('../../bench/measure.js');
  const { limitsText } = await import('../limits.js');
  const limits = await measureLimits();
  const what = openCase(name, config, { batch, steps, weights });
  const result = await measure(what, repeats, limits);
  what.dispose();
  if (json) {
    console.log(
      JSON.stringify({ ...result, ...limits, engine: engine.name, engine_version: engine.description }),
    );
    return;
  }
  const rows: [string, string][] = [
    ['case', result.case],
    ['engine', `${engine.name}: ${engine.description}`],
    [
      'time',
      `${result.seconds.toFixed(3)} s, the median of ${repeats}; fastest ${result.fastest.toFixed(3)} s; of the processors ${result.processor_seconds.toFixed(3)} s`,
    ],
    ['images/s', result.images_per_second.toPrecision(3)],
    ['share of limit', `${(100 * result.share_of_limit).toFixed(0)} % of the ${result.limited_by}`],
    ...limitsText(limits),
    ['peak memory', `${(result.peak_memory / 2 ** 30).toFixed(2)} GiB`],
  ];
  const width = Math.max(...rows.map(([key]) => key.length));
  for (const [key, value] of rows) console.log(`${key.padEnd(width)}  ${value}`);
}

export function register(program: Command): void {
  const command = program
    .command('bench')
    .description('time a model of random weights on this machine, beside what the machine can do')
    .addArgument(new Argument('<case>', 'what to time').choices(Object.keys(CASES)));
  withConfig(command)
    .option('-b, --batch <n>', 'images at once', wholeNumber(1), 1)
    .option('--steps <n>', 'codes to sample of each image (default: all)', wholeNumber(1))
    .option('--repeats <n>', 'runs after one to warm up', wholeNumber(1), 3)
    .addOption(weightsOption())
    .option('--json', 'one line of JSON')
    .addHelpText(
      'after',
      examples([
        ['alitok bench sample -c configs/alitok_b.yaml --steps 32', 'decoding with the published sizes'],
        ['alitok bench train -c configs/alitok_b.yaml --batch 4', 'a training step'],
      ]),
    )
    .action(action(run));
}
