import { Argument, type Command } from 'commander';
import type { Case, CaseName, CaseSpec } from '../../bench/cases.js';
import type { Measurement } from '../../bench/measure.js';
import type { WeightKind } from '../../engine/ops/index.js';
import { AlitokError, ConfigError, EngineError } from '../../errors.js';
import { nearest } from '../../suggest.js';
import { formatBytes, type NameValue } from '../../text.js';
import { action, type ConfigOptions, type Invocation, openJob, readConfig } from '../base/command.js';
import { configOption, examples, jsonOption, weightsOption, wholeNumber } from '../base/options.js';
import { limitsRows, printTable } from '../base/output.js';

interface BenchOptions extends ConfigOptions {
  repeats: number;
  json?: boolean;
  weights: WeightKind;
}

// Written out, because their module takes too long to import for the help.
const CASES: Record<CaseName, true> = { encode: true, decode: true, train: true, sample: true };

/** The cases among the words of the command line; the words with a value are overrides of the config. */
async function casesOf(words: readonly string[]): Promise<{ text: string; spec: CaseSpec }[]> {
  const { parseCase } = await import('../../bench/cases.js');
  const cases = words.map((text) => {
    const spec = parseCase(text);
    if (spec) return { text, spec };
    const meant = nearest(text.split(':')[0], Object.keys(CASES));
    throw new ConfigError(
      `"${text}" is not a case${meant ? `; did you mean ${meant}?` : ''}: write encode, decode, train or sample, with :IMAGES for a batch of more than one, and for sample also :CODES, as in sample:8:32`,
    );
  });
  if (cases.length === 0) throw new ConfigError('name at least one case, such as sample:8');
  return cases;
}

function rowsOf(measured: Measurement, repeats: number): NameValue[] {
  const { description, seconds, fastest, processor_seconds: used, kernels } = measured;
  const rows: NameValue[] = [
    ['case', description],
    [
      'time',
      `${seconds.toFixed(3)} s (median of ${repeats}), fastest ${fastest.toFixed(3)} s, processor time ${used.toFixed(3)} s`,
    ],
    ['images/s', measured.images_per_second.toPrecision(3)],
    ['of the limit', `${(100 * measured.share_of_limit).toFixed(0)} % of the ${measured.limited_by}`],
    ['peak memory', formatBytes(measured.peak_memory)],
  ];
  const { steps, tfjs_kernels, library_calls } = measured;
  const library = library_calls === undefined ? '' : `, ${Math.round(library_calls)} of its library`;
  const each = steps > 1 ? ' per decoding step' : '';
  rows.push(['host', `${Math.round(tfjs_kernels)} operations of tfjs${library}${each}`]);
  if (kernels !== undefined) {
    const perStep = measured.kernels_per_step;
    const each = perStep === undefined ? '' : `, ${perStep.toFixed(0)} per decoding step`;
    rows.push(['kernels', `${kernels}${each}, ${measured.kernel_seconds!.toFixed(3)} s in total`]);
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
  const limits = await measureLimits(precision);
  if (!json) printTable([['engine', `${engine.name}: ${engine.description}`], ...limitsRows(limits)]);
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
      else printTable([['', ''], ...rowsOf(measured, repeats)]);
    } catch (error) {
      // The others run even if one is too large for the device.
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
    'encode, decode, train or sample, each with its batch size, as in train:4; sample also with a number of codes, as in sample:8:32; and config values, such as generator.layers=12',
  );
  argument.argChoices = Object.keys(CASES);
  const command = program
    .command('bench')
    .description(
      'measure the speed of models with random weights, and compare it with the limits of this machine',
    )
    .addArgument(argument);
  configOption(command)
    .option('--repeats <n>', 'timed runs of each case, after a warm-up', wholeNumber(1), 3)
    .addOption(weightsOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples([
        [
          'alitok bench sample:1:32 -c configs/alitok_b.yaml',
          '32 codes of one image, with the published sizes',
        ],
        ['alitok bench encode:4 decode:4 train:4', 'several cases, one after the other'],
      ]),
    )
    .action(action(run));
}
