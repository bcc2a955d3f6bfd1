import type { Command } from 'commander';
import { formatBytes, type NameValue } from '../../text.js';
import { action, engineOptions, type Invocation } from '../base/command.js';
import { examples, jsonOption } from '../base/options.js';
import { limitsRows, printTable } from '../base/output.js';

async function run(invocation: Invocation<{ json?: boolean }>): Promise<void> {
  const { options } = invocation;
  const { examine, operatorsRows, requireSound } = await import('../../doctor/examine.js');
  const found = await examine(options.engine, engineOptions(invocation));
  if (options.json) {
    console.log(JSON.stringify(found));
    requireSound(found);
    return;
  }
  const { machine, engines, devices, chosen, limits, selfTest, operators, versions, git_revision, advice } =
    found;
  printTable([
    ['machine', `${machine.processor}, ${machine.processors} of ${machine.installed} processors`],
    ['memory', `${formatBytes(machine.memory)}, ${formatBytes(machine.freeMemory)} free`],
    ['disk', `${formatBytes(machine.freeDisk)} free in this folder`],
    ['Node.js', `${process.version} on ${process.platform} ${process.arch}`],
    [
      'alitok',
      `${versions.alitok}${git_revision ? ` (${git_revision.slice(0, 10)})` : ''}, tfjs ${versions.tfjs}`,
    ],
    ...engines.map(
      (one): NameValue => [one.name, 'problem' in one ? `cannot run: ${one.problem}` : one.description],
    ),
    ['devices', devices.join(', ')],
    ['chosen', `${chosen.name}: ${chosen.description}`],
    ...limitsRows(limits),
    [
      'self-test',
      `${selfTest.passed ? 'passed' : 'FAILED'}: ${selfTest.compared} values of PyTorch, largest error ${selfTest.error.toExponential(1)} (${selfTest.worst})`,
    ],
    ...(operators ? operatorsRows(operators) : []),
  ]);
  console.log(advice.length > 0 ? '\nAdvice' : '\nNo problems found.');
  for (const line of advice) console.log(`  - ${line}`);
  requireSound(found);
}

export function register(program: Command): void {
  program
    .command('doctor')
    .description('check this machine: which engines run, their speed and correctness, and what to improve')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      examples([
        ['alitok doctor', 'check the engine that auto selects'],
        ['alitok --engine wasm doctor', 'check another one'],
      ]),
    )
    .action(action(run));
}
