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
import { programVersions } from '../versions.js';
import { besideCpu, compareOperators, type OperatorResult } from './compare-operators.js';
import { describeMachine, type Machine } from './machine.js';
import { type SelfTest, selfTest } from './self-test.js';

/** What an engine is, or why it does not run here. */
export type EngineState = { name: EngineName } & ({ description: string } | { problem: string });

/** All that `alitok doctor` finds out. */
export interface Examination extends ReturnType<typeof programVersions> {
  machine: Machine;
  engines: EngineState[];
  devices: string[];
  /** The one that the options choose; the measurements are its. */
  chosen: Engine;
  limits: Limits;
  selfTest: SelfTest;
  /** Each operation on the chosen engine's device beside the CPU; absent where that is the device. */
  operators?: OperatorResult[];
  /** What can be better, each with what to do. */
  advice: string[];
}

const GIB = 2 ** 30;
/** Under these the smaller configs already run out. */
const LEAST = { memory: 4 * GIB, disk: 2 * GIB };

async function engineStates(options: EngineOptions): Promise<EngineState[]> {
  const states: EngineState[] = [];
  for (const name of ENGINES) {
    if (name === 'auto' || name === 'cpu') continue;
    try {
      const { description } = await openEngine(name, { threads: options.threads });
      states.push({ name, description });
    } catch (error) {
      if (!(error instanceof AlitokError)) throw error;
      states.push({ name, problem: error.message });
    }
  }
  return states;
}

/** What to do about what is not as good as it could be. */
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
  const gib = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`;
  const advice: string[] = [];
  if (!tested.passed)
    advice.push(
      `${chosen.name} computes wrongly on this machine; use another --engine, and report it with the output of alitok doctor`,
    );
  if (operators?.some(({ passed }) => !passed))
    advice.push(
      `what ${chosen.name} computes on its device is not what the CPU computes; use --device cpu, and report it with the output of alitok doctor`,
    );
  const libtorch = engines.find(({ name }) => name === 'libtorch');
  if (libtorch && 'problem' in libtorch && chosen.name !== 'libtorch')
    advice.push(`libtorch would be the fastest engine: ${libtorch.problem}`);
  const { processors, installed, memory, freeMemory, freeDisk, load } = machine;
  if (processors < installed)
    advice.push(
      `this process may use ${processors} of ${installed} processors; give the container or job more for more speed`,
    );
  const threads = Number(environment.OMP_NUM_THREADS);
  if (threads > 0 && threads < processors)
    advice.push(
      `OMP_NUM_THREADS=${threads} keeps some libraries from ${processors - threads} processors; unset it`,
    );
  if (load > processors + 0.5)
    advice.push(
      `other programs are at work (load ${load.toFixed(1)} on ${processors} processors), so the rates are too low; measure again when they have ended`,
    );
  if (memory < LEAST.memory)
    advice.push(
      `${gib(memory)} of memory is little: choose a small config or a small batch_size, and see --dry-run before training`,
    );
  else if (freeMemory < LEAST.memory / 4)
    advice.push(`only ${gib(freeMemory)} of memory is free now; end other programs before training`);
  if (freeDisk < LEAST.disk)
    advice.push(
      `only ${gib(freeDisk)} are free on this folder's disk; free some space or keep runs elsewhere (--run), and see --dry-run`,
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
  const engines = await engineStates(options);
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

/** Throws EngineError where the chosen engine failed its test, or an operation on its device. */
export function requireSound({
  chosen,
  selfTest: { passed, worst, error },
  operators,
}: Pick<Examination, 'chosen' | 'selfTest' | 'operators'>): void {
  if (!passed)
    throw new EngineError(
      `${chosen.name} computes wrongly on this machine (${worst}: error ${error.toExponential(1)}); use another --engine and report it`,
    );
  const wrong = operators?.filter((result) => !result.passed) ?? [];
  if (wrong.length > 0)
    throw new EngineError(
      `${chosen.name} does not compute on its device what it does on the CPU (${wrong.map(({ name }) => name).join('; ')}); use --device cpu and report it`,
    );
}
