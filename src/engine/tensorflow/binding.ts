import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import util from 'node:util';
import type * as tf from '@tensorflow/tfjs';
import { EngineError, LESS_MEMORY, option } from '../../errors.js';

/** A tensor of TensorFlow as the binding describes it: its handle, shape and element type. */
export interface Handle {
  readonly id: number;
  readonly shape: number[];
  /** TensorFlow's number of the element type (`Type`). */
  readonly dtype: number;
}

/** An attribute of a TensorFlow operation. `type` is TensorFlow's number of the attribute's type. */
export interface Attribute {
  name: string;
  type: number;
  value: unknown;
}

/** The native module of tfjs-node (its binding/tfjs_binding.cc). */
export interface Binding {
  readonly TF_Version: string;
  createTensor(shape: readonly number[], dtype: number, values: tf.backend_util.BackendValues): number;
  deleteTensor(id: number): void;
  tensorDataSync(id: number): tf.backend_util.BackendValues;
  executeOp(
    name: string,
    attributes: readonly Attribute[],
    inputs: readonly number[],
    outputs: number,
  ): Handle[];
  isUsingGpuDevice(): boolean;
}

/** The data of a tensor as tfjs-node keeps them. */
interface NodeData extends Handle {
  id: number;
  /** Set until they are sent to the device. */
  values: tf.backend_util.BackendValues | null;
  refCount: number;
}

/** Our native module (native/module.cc), which has tfjs-node's binding in it. */
export interface Native {
  /** TensorFlow's version. */
  version: string;
  /** The version of CUDA that TensorFlow was built for; '' if without CUDA, `unknown` if its files do not say. */
  cuda: string;
  /** The number of CUDA devices that the driver reports. */
  cudaDevices(): number;
  /** Starts TensorFlow with a serialized ConfigProto. `devices` has TensorFlow's names of its devices. */
  start(config: Uint8Array): Binding & { devices: string[] };
  /** Makes all operations run on the CPU, or where TensorFlow puts them. */
  computeOnCpu(on: boolean): void;
}

/** What tfjs-node's backend has besides tfjs's interface. */
export interface NodeBackend extends tf.KernelBackend {
  readonly binding: Binding;
  /** Whether operations run with signals blocked, as our module does. */
  readonly shielded: boolean;
  readonly tensorMap: { get(dataId: object): NodeData; set(dataId: object, data: NodeData): void };
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[];
  createOutputTensor(handle: Handle): tf.Tensor;
}

/** tfjs-node as it is installed: its name, version and folder, and the native module of its own installation, if any. */
export interface NodePackage {
  name: string;
  version: string;
  path: string;
  downloaded?: string;
}

const require = createRequire(import.meta.url);
const inPackage = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** In dist, also when a test runs the sources. */
const MODULE = inPackage('dist/engine/tensorflow/binding.node');
/** Built beside it (native/quiet.cc). */
const QUIET = inPackage('dist/engine/tensorflow/quiet.node');
/** What finds tfjs-node, shared with the build and loaded when it is needed. */
const finder = () =>
  require(inPackage('src/engine/tensorflow/native/package.cjs')) as {
    findPackage(names?: readonly string[]): NodePackage | undefined;
  };

/** The command that builds the engine, in a clone and in a project that has alitok installed. */
export const BUILD = existsSync(inPackage('tsconfig.json'))
  ? 'run "npm run build:tensorflow"'
  : 'run "npm explore alitok -- npm run build:tensorflow"';

/**
 * Loads the native module that was built, and with it TensorFlow; undefined if there is none.
 * Throws EngineError with the remedy if it does not load.
 * @param verbose whether TensorFlow may print meanwhile
 */
export function loadNative(verbose = false, module = MODULE): Native | undefined {
  if (!existsSync(module)) return undefined;
  if (verbose) return load<Native>(module);
  return load<{ quietly<T>(run: () => T): T }>(QUIET).quietly(() => load<Native>(module));
}

/** The native module that tfjs-node has downloaded. Throws EngineError with the remedy if it does not load. */
export const loadDownloaded = (module: string): Binding => load<Binding>(module);

function load<T>(module: string): T {
  try {
    return require(module) as T;
  } catch (cause) {
    const why = (cause as Error).message.split('\n')[0];
    const what = /undefined symbol|version `.*' not found/.test(why)
      ? 'the binding was built against another TensorFlow than the one that is here'
      : 'the TensorFlow that the binding was built against does not load';
    throw new EngineError(`${what}; ${BUILD} again: ${why}`, { cause });
  }
}

/** Finds tfjs-node. Throws EngineError with the remedy if it is not installed. */
export function requirePackage(names?: readonly string[]): NodePackage {
  const found = finder().findPackage(names);
  if (!found) throw notBuilt();
  return found;
}

/** The error for an engine that is not built. */
export const notBuilt = (): EngineError =>
  new EngineError(
    `${option('engine', 'tensorflow')} is not built: install TensorFlow (pip install tensorflow) and ${BUILD}`,
  );

/** Functions of Node.js that tfjs-node (4.22) calls, and that Node.js 22 warns of and 23 began to remove. */
const UTILITIES = {
  isArray: Array.isArray,
  isNullOrUndefined: (value: unknown) => value === null || value === undefined,
};

/** Puts functions without warnings in the place of those, in Node.js's module of utilities by default. */
export function restoreUtilities(utilities: object = util): void {
  Object.assign(utilities, UTILITIES);
}

/** Registers tfjs-node's kernels and returns its class of backends. */
export function loadBackend({
  path,
}: NodePackage): new (
  binding: Binding,
  packageName: string,
) => NodeBackend {
  restoreUtilities();
  require(`${path}/dist/register_all_kernels.js`);
  return require(`${path}/dist/nodejs_kernel_backend.js`).NodeJSKernelBackend;
}

/** An error of one line for a failure in TensorFlow, with its own message. If memory ran out, it says what to lower. */
export function failure(cause: unknown, doing: string): EngineError {
  const { message } = cause as Error;
  const [line] = message.replace(/^Invalid TF_Status: \d+\s*(Message: )?/, '').split('\n');
  const remedy = NO_MEMORY.test(message) ? `; ${LESS_MEMORY}` : '';
  return new EngineError(`TensorFlow: ${doing}: ${line}${remedy}`, { cause });
}

/** What TensorFlow's allocators say when memory runs out. */
const NO_MEMORY = /OOM|out of memory|ran out of memory|failed to allocate|bad_alloc/i;
