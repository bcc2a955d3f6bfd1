import { availableParallelism } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../errors.js';
import { registerCompositions } from './ops/define.js';
import './ops/index.js';
import { libtorchDevices, startLibtorch } from './libtorch.js';
import type { EngineOptions } from './options.js';
import { startTensorFlow, tensorflowDevices } from './tensorflow.js';
import { startWasm } from './wasm.js';

export type { EngineOptions } from './options.js';

/** The engines. `cpu` is tfjs's plain JavaScript: slow, and the reference for the others. */
export const ENGINES = ['auto', 'libtorch', 'tensorflow', 'wasm', 'cpu'] as const;
export type EngineChoice = (typeof ENGINES)[number];
export type EngineName = Exclude<EngineChoice, 'auto'>;

/** Starts an engine and returns its library, version and threads. Throws EngineError if it cannot run. */
const start: Record<EngineName, (options: EngineOptions) => Promise<Omit<Engine, 'name'>>> = {
  libtorch: async ({ threads = availableParallelism(), ...options }) => ({
    description: startLibtorch({ threads, ...options }),
    threads,
  }),
  tensorflow: async (options) => startTensorFlow(options),
  wasm: async (options) => ({
    description: `tfjs-backend-wasm ${tf.version_core}`,
    threads: await startWasm(options),
  }),
  cpu: async () => ({ description: `tfjs-backend-cpu ${tf.version_core}`, threads: 1 }),
};

/** The devices of this machine that an engine can use. */
export function devices(): string[] {
  for (const list of [libtorchDevices, tensorflowDevices])
    try {
      const found = list();
      if (found.length > 1) return found;
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
    }
  return ['cpu'];
}

/** The device that the current engine computes on, one of `devices()`. */
export function currentDevice(): string {
  return (tf.backend() as { device?: string }).device ?? 'cpu'; // only libtorch and tensorflow have others
}

/** The engines that can compute on other devices than the CPU. */
const WITH_DEVICES: readonly EngineName[] = ['libtorch', 'tensorflow'];

/** Throws EngineError if the options need another engine. */
function refuse(
  name: EngineName,
  { device = 'cpu', precision = 'float32', tf32 = false }: EngineOptions,
): void {
  const asked = [
    device === 'cpu' || WITH_DEVICES.includes(name) ? '' : `${option('device', device)}`,
    precision === 'float32' ? '' : `${option('precision', precision)}`,
    tf32 ? `${option('tf32')}` : '',
  ].filter((option) => option !== '');
  if (asked.length > 0)
    throw new EngineError(
      `the engine ${name} does not support ${asked.join(' ')}; use ${option('engine', 'libtorch')}`,
    );
}

/** The running engine, for logs and run folders. */
export interface Engine {
  name: EngineName;
  description: string;
  /** The number of processors it uses, which may differ from the number asked for. */
  threads: number;
}

/**
 * Starts an engine and makes it the current one. `auto` picks the first of libtorch, tensorflow and wasm that can run.
 * `threads` defaults to all processors; all engines but cpu can use fewer. Throws EngineError with the remedy if the chosen
 * engine cannot run.
 */
export async function openEngine(
  choice: EngineChoice = 'auto',
  options: EngineOptions = {},
): Promise<Engine> {
  tf.enableProdMode(); // no advice to install another package, no per-op checks
  for (const name of choice === 'auto' ? (['libtorch', 'tensorflow', 'wasm'] as const) : [choice]) {
    try {
      if (name !== 'libtorch') refuse(name, options);
      const started = await start[name](options);
      await tf.setBackend(name);
      await tf.ready();
      registerCompositions(name);
      const { threads } = started;
      options.debug?.(
        `${name} started: ${started.description}, ${threads} threads, device ${currentDevice()}`,
      );
      return { name, ...started };
    } catch (error) {
      if (choice !== 'auto' || name === 'wasm' || !(error instanceof EngineError)) throw error;
      options.debug?.(`${name} was passed over: ${error.text}`);
    }
  }
  throw new EngineError('no engine could be started');
}
