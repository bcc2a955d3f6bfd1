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

/** What tfjs-node's backend has besides tfjs's interface. */
export interface NodeBackend extends tf.KernelBackend {
  readonly binding: Binding;
  readonly tensorMap: { get(dataId: object): NodeData; set(dataId: object, data: NodeData): void };
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[];
  createOutputTensor(handle: Handle): tf.Tensor;
}

/** tfjs-node as it is loaded. */
export interface NodePackage {
  name: string;
  version: string;
  binding: Binding;
  NodeJSKernelBackend: new (binding: Binding, packageName: string) => NodeBackend;
}

const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

/** In dist, also when a test runs the sources. */
const MODULE = fileURLToPath(new URL('../../../dist/engine/tensorflow/binding.node', import.meta.url));

/** Functions of Node.js that tfjs-node (4.22) calls and that Node.js 23 removed. */
const REMOVED = { isNullOrUndefined: (x: unknown) => x === null || x === undefined, isArray: Array.isArray };

function restoreUtilities(): void {
  for (const [name, run] of Object.entries(REMOVED))
    if (!(name in util)) Object.assign(util, { [name]: run });
}

/** Loads the JavaScript of tfjs-node and the binding that was built. Throws EngineError with the remedy. */
export function loadPackage(): NodePackage {
  const require = createRequire(import.meta.url);
  for (const name of PACKAGES) {
    let file: string;
    try {
      file = require.resolve(`${name}/package.json`);
    } catch {
      continue;
    }
    const { version } = require(file) as { version: string };
    restoreUtilities();
    const binding = require(MODULE) as Binding;
    require(`${name}/dist/register_all_kernels.js`);
    const { NodeJSKernelBackend } = require(`${name}/dist/nodejs_kernel_backend.js`) as NodePackage;
    return { name, version, binding, NodeJSKernelBackend };
  }
  throw new EngineError(`${option('engine', 'tensorflow')} needs ${PACKAGES.join(' or ')}`);
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
