import { availableParallelism, cpus, freemem, loadavg } from 'node:os';
import { type Limits, measureLimits } from '../bench/measure.js';
import {
  currentDevice,
  devices,
  ENGINES,
  type Engine,
  type EngineChoice,
  type EngineName,
  type EngineOptions,
  openEngine,
} from '../engine/index.js';
import { AlitokError, EngineError } from '../errors.js';
import { availableMemory, freeDisk } from '../machine.js';
import { formatBytes, type NameValue } from '../text.js';
import { programVersions } from '../versions.js';
import { besideCpu, compareOperators, type OperatorResult, shareOfLimit } from './compare-operators.js';
import { OPERATOR_CHECKS } from './operators.js';
import { type SelfTest, selfTest } from './self-test.js';

/** What this process may use of the machine. */
export interface Machine {
  processor: string;
  /** Processors that this process may run on: a container or `taskset` may leave out some of those installed. */
  processors: number;
  installed: number;
  /** Bytes that this process may use, and bytes that are free now. */
  memory: number;
  freeMemory: number;
  /** Free bytes of the disk of the current folder. */
  freeDisk: number;
  /** Load average of the last minute. */
  load: number;
}

/** Examines what this process may use. */
export async function describeMachine(): Promise<Machine> {
  const all = cpus();
  return {
    processor: all[0]?.model.trim() || process.arch,
    processors: availableParallelism(),
    installed: all.length,
    memory: availableMemory(),
    freeMemory: Math.min(freemem(), availableMemory()),
    freeDisk: await freeDisk('.'),
    load: loadavg()[0],
  };
}

/** What an engine is, or why it does not run here. */
export type EngineState = { name: EngineName } & ({ description: string } | { problem: string });

/** The result of `alitok doctor`. */
export interface Examination extends ReturnType<typeof programVersions> {
  machine: Machine;
  engines: EngineState[];
  devices: string[];
  /** The engine that the options choose, which is measured and tested. */
  chosen: Engine;
  limits: Limits;
  selfTest: SelfTest;
  /** Each operation on the chosen engine's device, compared with the CPU; absent if the device is the CPU. */
  operators?: OperatorResult[];
  /** What can be improved, and how. */
  advice: string[];
}

const GIB = 2 ** 30;
/** With less than this, in bytes, even the smaller configs do not run. */
const LEAST = { memory: 4 * GIB, disk: 2 * GIB };

async function engineStates(engine: EngineChoice, options: EngineOptions): Promise<EngineState[]> {
  const states: EngineState[] = [];
  for (const name of ENGINES) {
    if (name === 'auto' || name === 'cpu') continue;
    try {
      const { threads, verbose, device } = options;
      // TensorFlow is started once, so it is started on the device that it may be chosen for.
      const first = name === 'tensorflow' && engine !== 'libtorch' ? { device } : {};
      const { description } = await openEngine(name, { threads, verbose, ...first });
      states.push({ name, description });
    } catch (error) {
      if (!(error instanceof AlitokError)) throw error;
      states.push({ name, problem: error.message });
    }
  }
  return states;
}

/** What can be improved, and how, one line each. */
export function adviceFor(
  {
    machine,
    engines,
    chosen,
    selfTest: tested,
    operators,
  }: Pick<Examination, 'machine' | 'engines' | 'chosen' | 'selfTest' | 'operators'>,
  environment: Readonly<Record<string, string | undefined>>,
): string[] {
  const advice: string[] = [];
  if (!tested.passed)
    advice.push(
      `${chosen.name} computes wrong results on this machine; use another --engine, and report it with the output of alitok doctor`,
    );
  if (operators?.some(({ passed }) => !passed))
    advice.push(
      `the results of ${chosen.name} on its device differ from those on the CPU; use --device cpu, and report it with the output of alitok doctor`,
    );
  const libtorch = engines.find(({ name }) => name === 'libtorch');
  if (libtorch && 'problem' in libtorch && chosen.name !== 'libtorch')
    advice.push(`libtorch would be the fastest engine: ${libtorch.problem}`);
  const { processors, installed, memory, freeMemory, freeDisk, load } = machine;
  if (processors < installed)
    advice.push(
      `this process may use ${processors} of ${installed} processors; give the container or job more of them for more speed`,
    );
  const threads = Number(environment.OMP_NUM_THREADS);
  if (threads > 0 && threads < processors)
    advice.push(
      `OMP_NUM_THREADS=${threads} limits some libraries to ${threads} of ${processors} processors; unset it`,
    );
  if (load > processors + 0.5)
    advice.push(
      `other programs are running (load ${load.toFixed(1)} on ${processors} processors), so the measured rates are too low; measure again when they have ended`,
    );
  if (memory < LEAST.memory)
    advice.push(
      `${formatBytes(memory)} of memory is little: choose a small config or a small batch_size, and use --dry-run before training`,
    );
  else if (freeMemory < LEAST.memory / 4)
    advice.push(`only ${formatBytes(freeMemory)} of memory is free now; end other programs before training`);
  if (freeDisk < LEAST.disk)
    advice.push(
      `only ${formatBytes(freeDisk)} are free on this folder's disk; free some space or keep runs elsewhere (--run), and use --dry-run`,
    );
  return advice;
}

async function allOperators(engine: EngineName, options: EngineOptions): Promise<OperatorResult[]> {
  const results: OperatorResult[] = [];
  for await (const result of compareOperators(besideCpu(engine, options))) results.push(result);
  return results;
}

/**
 * Examines engines, machine and speed, and tests the chosen engine; leaves it open.
 * @throws EngineError where the chosen engine cannot run
 */
export async function examine(engine: EngineChoice, options: EngineOptions): Promise<Examination> {
  const machine = await describeMachine();
  const engines = await engineStates(engine, options);
  const chosen = await openEngine(engine, options);
  const limits = await measureLimits(options.precision);
  const onCpu = currentDevice() === 'cpu';
  if (options.precision === 'bf16' || options.tf32)
    await openEngine(chosen.name, { ...options, precision: 'float32', tf32: false });
  const found = {
    ...programVersions(),
    machine,
    engines,
    devices: devices(),
    chosen,
    limits,
    selfTest: await selfTest(),
    ...(!onCpu && { operators: await allOperators(chosen.name, options) }),
  };
  return { ...found, advice: adviceFor(found, process.env) };
}

/** How many operations agree with the CPU, and each that does not, as rows of a table. */
export function operatorsRows(results: readonly OperatorResult[]): NameValue[] {
  const right = results.filter(({ passed }) => passed);
  const farthest = right.reduce<OperatorResult | undefined>(
    (most, one) => (most && shareOfLimit(most) >= shareOfLimit(one) ? most : one),
    undefined,
  );
  const most =
    farthest && `; largest error ${farthest.error.toExponential(1)} (${farthest.name}, ${farthest.worst})`;
  const wrong = results.filter(({ passed }) => !passed);
  const lost = results.at(-1)?.lost;
  return [
    ['operators', `${right.length} of ${OPERATOR_CHECKS.length} agree with the CPU${most ?? ''}`],
    ...wrong.map(({ name, failure, error, worst, limit }): NameValue => {
      if (failure) return ['', `${name} FAILED: ${failure}`];
      return ['', `${name} is WRONG: error ${error.toExponential(1)} in ${worst}, more than ${limit}`];
    }),
    ...(lost ? [['', 'after that the device did not respond: the others were not run'] as NameValue] : []),
  ];
}

/** @throws EngineError if the chosen engine failed its self-test, or an operation on its device is wrong */
export function requireSound({
  chosen,
  selfTest: { passed, worst, error },
  operators,
}: Pick<Examination, 'chosen' | 'selfTest' | 'operators'>): void {
  if (!passed)
    throw new EngineError(
      `${chosen.name} computes wrong results on this machine (${worst}: error ${error.toExponential(1)}); use another --engine and report it`,
    );
  const wrong = operators?.filter((result) => !result.passed) ?? [];
  if (wrong.length > 0)
    throw new EngineError(
      `the results of ${chosen.name} on its device differ from those on the CPU (${wrong.map(({ name }) => name).join('; ')}); use --device cpu and report it`,
    );
}
