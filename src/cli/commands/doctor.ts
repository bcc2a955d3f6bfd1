import type { Command } from 'commander';
import { action, examples, type Invocation } from '../base/command.js';

type Line = [name: string, value: string];

async function run({ options }: Invocation<{ json?: boolean }>): Promise<void> {
  const { examine, requireSound } = await import('../../doctor/examine.js');
  const { operatorsText } = await import('../base/operators.js');
  const { limitsText } = await import('../base/limits.js');
  const found = await examine(options.engine, options);
  if (options.json) {
    console.log(JSON.stringify(found));
    requireSound(found);
    return;
  }
  const { machine, engines, devices, chosen, limits, selfTest, operators, versions, git_revision, advice } =
    found;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const lines: Line[] = [
    ['machine', `${machine.processor}, ${machine.processors} of ${machine.installed} processors`],
    ['memory', `${gib(machine.memory)}, of which ${gib(machine.freeMemory)} are free`],
    ['disk here', `${gib(machine.freeDisk)} free`],
    ['Node.js', `${process.version} on ${process.platform} ${process.arch}`],
    [
      'alitok',
      `${versions.alitok}${git_revision ? ` (${git_revision.slice(0, 10)})` : ''}, tfjs ${versions.tfjs}`,
    ],
    ...engines.map(
      (one): Line => [one.name, 'problem' in one ? `cannot run: ${one.problem}` : one.description],
    ),
    ['devices', devices.join(', ')],
    ['chosen', `${chosen.name}: ${chosen.description}`],
    ...limitsText(limits),
    [
      'self-test',
      `${selfTest.passed ? 'passed' : 'FAILED'}: ${selfTest.compared} values of PyTorch; farthest off by ${selfTest.error.toExponential(1)} (${selfTest.worst})`,
    ],
    ...(operators ? operatorsText(operators) : []),
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  for (const [name, value] of lines) console.log(`${name.padEnd(width)}  ${value}`);
  console.log(advice.length > 0 ? '\nWhat to do' : '\nNothing needs to be done.');
  for (const line of advice) console.log(`  - ${line}`);
  requireSound(found);
}

export function register(program: Command): void {
  program
    .command('doctor')
    .description(
      'say which engines run here and why others do not, how fast the machine is, whether it is right, and what to do',
    )
    .option('--json', 'one line of JSON')
    .addHelpText(
      'after',
      examples([
        ['alitok doctor', 'the engine that auto takes'],
        ['alitok --engine wasm doctor', 'another'],
      ]),
    )
    .action(action(run));
}
