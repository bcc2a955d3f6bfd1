import { Argument, type Command } from 'commander';
import type { Case, CaseName, CaseSpec } from '../../bench/cases.js';
import type { Measurement } from '../../bench/measure.js';
import type { WeightKind } from '../../engine/ops/index.js';
import { AlitokError, ConfigError, EngineError } from '../../errors.js';
import { nearest } from '../../suggest.js';
import {
  action,
  type ConfigOptions,
  configOption,
  examples,
  type Invocation,
  openJob,
  readConfig,
  weightsOption,
  wholeNumber,
} from '../base/command.js';

interface BenchOptions extends ConfigOptions {
  repeats: number;
  json?: boolean;
  weights: WeightKind;
}

// Written out, because their module is too heavy for the help.
const CASES: Record<CaseName, true> = { encode: true, decode: true, train: true, sample: true };

/** The cases among the words of the command line; the words with a value are overrides of the config. */
async function casesOf(words: readonly string[]): Promise<{ text: string; spec: CaseSpec }[]> {
  const { parseCase } = await import('../../bench/cases.js');
  const cases = words.map((text) => {
    const spec = parseCase(text);
    if (spec) return { text, spec };
    const meant = nearest(text.split(':')[0], Object.keys(CASES));
    throw new ConfigError(
      `"${text}" is no case${meant ? `; did you mean ${meant}?` : ''}: write encode, decode, train or sample, each with :IMAGES if more than one, and sample also with :CODES, as in sample:8:32`,
    );
  });
  if (cases.length === 0) throw new ConfigError('name at least one case, such as sample:8');
  return cases;
}

function table(measured: Measurement, repeats: number): [string, string][] {
  const { description, seconds, fastest, processor_seconds: used, kernels } = measured;
  const rows: [string, string][] = [
    ['case', description],
    [
      'time',
      `${seconds.toFixed(3)} s, the median of ${repeats}; fastest ${fastest.toFixed(3)} s; of the processors ${used.toFixed(3)} s`,
    ],
    ['images/s', measured.images_per_second.toPrecision(3)],
    ['share of limit', `${(100 * measured.share_of_limit).toFixed(0)} % of the ${measured.limited_by}`],
    ['peak memory', `${(measured.peak_memory / 2 ** 30).toFixed(2)} GiB`],
  ];
  const { steps, tfjs_kernels, bridge_calls } = measured;
  const bridge = bridge_calls === undefined ? '' : `, ${Math.round(bridge_calls)} calls of PyTorch`;
  const each = steps > 1 ? ' a decoding step' : '';
  rows.push(['host', `${Math.round(tfjs_kernels)} operations of tfjs${bridge}${each}`]);
  if (kernels !== undefined) {
    const perStep = measured.kernels_per_step;
    const each = perStep === undefined ? '' : `, ${perStep.toFixed(0)} a decoding step`;
    rows.push(['kernels', `${kernels}${each}, for ${measured.kernel_seconds!.toFixed(3)} s in all`]);
  }
  return rows;
}

async function run(invocation: Invocation<BenchOptions>): Promise<void> {
  const { repeats, json, weights, precision, tf32, config: file } = invocation.options;
  const words = invocation.args[0] as string[];
  const cases = await casesOf(words.filter((word) => !word.includes('=')));
  const config = await readConfig({ ...invocation, args: [words.filter((word) => word.includes('='))] });
  const { engine } = await openJob(invocation);
  const { openCase } = await import('../../bench/cases.js');
  const { measure, measureLimits } = await import('../../bench/measure.js');
  const { limitsText } = await import('../base/limits.js');
  const limits = await measureLimits(precision);
  const show = (rows: [string, string][]) => {
    const width = Math.max(...rows.map(([key]) => key.length));
    for (const [key, value] of rows) console.log(`${key.padEnd(width)}  ${value}`);
  };
  if (!json) show([['engine', `${engine.name}: ${engine.description}`], ...limitsText(limits)]);
  const products = tf32 ? 'tf32' : precision;
  const about = {
    config: file,
    weights,
    precision: products,
    engine: engine.name,
    engine_version: engine.description,
  };
  const failed: string[] = [];
  for (const { text, spec } of cases) {
    let what: Case | undefined;
    try {
      what = openCase(spec, config, { weights, precision });
      const measured = await measure(what, repeats, limits);
      if (json) console.log(JSON.stringify({ case: text, ...measured, ...limits, ...about }));
      else show([['', ''], ...table(measured, repeats)]);
    } catch (error) {
      // One that is too large for the device must not take the others along.
      if (!(error instanceof AlitokError) || cases.length === 1) throw error;
      failed.push(text);
      if (json) console.log(JSON.stringify({ case: text, error: error.message, ...about }));
      invocation.log.warn(`${text}: ${error.message}`);
    } finally {
      what?.dispose();
    }
  }
  if (failed.length > 0)
    throw new EngineError(`${failed.length} of ${cases.length} cases failed: ${failed.join(', ')}`);
}

export function register(program: Command): void {
  const argument = new Argument(
    '<cases...>',
    'what to time, each with how many images at once, and of sample how many codes, such as sample:8:32; config values may stand among them, such as generator.layers=12',
  );
  argument.argChoices = Object.keys(CASES);
  const command = program
    .command('bench')
    .description('time models of random weights on this machine, beside what the machine can do')
    .addArgument(argument);
  configOption(command)
    .option('--repeats <n>', 'runs of each after one to warm up', wholeNumber(1), 3)
    .addOption(weightsOption())
    .option('--json', 'a line of JSON for each')
    .addHelpText(
      'after',
      examples([
        [
          'alitok bench sample:1:32 -c configs/alitok_b.yaml',
          '32 codes of an image, with the published sizes',
        ],
        ['alitok bench encode:4 decode:4 train:4', 'several, one after the other'],
      ]),
    )
    .action(action(run));
}
