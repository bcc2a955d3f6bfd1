import { availableParallelism, cpus, totalmem } from 'node:os';
import type { Command } from 'commander';
import type { EngineOptions } from '../../engine/index.js';
import { action, examples, type Invocation } from '../command.js';

/** Rounding differs between engines; a larger difference is a defect. */
const LARGEST_ERROR = 1e-4;

type Line = [name: string, value: string];

/** The engines that `auto` chooses from, each with what it is or why it cannot run. */
async function engines({ threads }: EngineOptions): Promise<Line[]> {
  const { ENGINES, openEngine } = await import('../../engine/index.js');
  const { AlitokError } = await import('../../errors.js');
  const lines: Line[] = [];
  for (const name of ENGINES) {
    if (name === 'auto' || name === 'cpu') continue;
    try {
      const { description } = await openEngine(name, { threads });
      lines.push([name, description]);
    } catch (error) {
      if (!(error instanceof AlitokError)) throw error;
      lines.push([name, `cannot run: ${error.message}`]);
    }
  }
  return lines;
}

async function run({ options }: Invocation<object>): Promise<void> {
  const { EngineError } = await import('../../errors.js');
  const { openEngine } = await import('../../engine/index.js');
  const { measureLimits } = await import('../../bench/measure.js');
  const { selfTest } = await import('../../bench/self-test.js');
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const limit = process.constrainedMemory();
  const lines: Line[] = [
    ['machine', `${cpus()[0]?.model ?? process.arch}, ${availableParallelism()} processors`],
    ['memory', limit > 0 && limit < totalmem() ? `${gib(limit)} of ${gib(totalmem())}` : gib(totalmem())],
    ['Node.js', `${process.version} on ${process.platform}`],
  ];
  lines.push(...(await engines(options)));
  const chosen = await openEngine(options.engine, options);
  const { bandwidth, matrixRate } = await measureLimits();
  lines.push(
    ['chosen', chosen.name],
    ['reads', `${(bandwidth / 1e9).toFixed(0)} GB/s, which is what decoding needs`],
    ['multiplies', `${(matrixRate / 1e9).toFixed(0)} GFLOP/s, which is what training needs`],
  );
  const error = await selfTest(chosen.name, { ...options, precision: 'float32' });
  lines.push(['self-test', `differs from plain JavaScript by ${error.toExponential(1)} at most`]);
  const width = Math.max(...lines.map(([name]) => name.length));
  for (const [name, value] of lines) console.log(`${name.padEnd(width)}  ${value}`);
  if (!(error <= LARGEST_ERROR))
    throw new EngineError(
      `${chosen.name} computes wrongly on this machine (error ${error.toExponential(1)}); use another --engine and report it`,
    );
}

export function register(program: Command): void {
  program
    .command('doctor')
    .description(
      'say which engines run here and why others do not, how fast the machine is, and whether it is right',
    )
    .addHelpText(
      'after',
      examples([
        ['alitok doctor', 'the engine that auto takes'],
        ['alitok --engine wasm doctor', 'another'],
      ]),
    )
    .action(action(run));
}
