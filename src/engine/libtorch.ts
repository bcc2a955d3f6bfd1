import { totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { chooseDevice, deviceNames } from './devices.js';
import { setDefaults } from './environment.js';
import { LibtorchBackend } from './libtorch/backend.js';
import { loadNative, type Native } from './libtorch/bridge.js';
import { registerKernels } from './libtorch/kernels/index.js';
import type { EngineOptions } from './options.js';

/**
 * How long PyTorch's threads (GNU OpenMP) spin between two operations, in iterations: about 50 µs. The default is far longer
 * and takes the processor from other programs.
 */
const SPINS = '20000';

/** The variables of the environment for PyTorch and its libraries, by name. */
const environment = (deterministic: boolean) => ({
  GOMP_SPINCOUNT: SPINS,
  // Steps of many sizes fragment memory in blocks of fixed size until a batch no longer fits; pages that are mapped on demand
  // do not fragment. PyTorch has used another name since 2.9 (PYTORCH_ALLOC_CONF), and still reads this one.
  PYTORCH_CUDA_ALLOC_CONF: process.env.PYTORCH_ALLOC_CONF ? undefined : 'expandable_segments:True',
  CUBLAS_WORKSPACE_CONFIG: deterministic ? ':4096:8' : undefined, // the only workspaces with a fixed order of sums
});

/** The share of the machine's memory that the allocator may cache for later tensors. */
const KEPT_MEMORY = 1 / 4;

/** The devices that PyTorch can use. Throws EngineError if it does not load. */
export function libtorchDevices(): string[] {
  return deviceNames(loadNative().cudaDevices());
}

/** Why our own kernels (native/cuda) cannot run on a device; undefined if they can. */
function withoutKernels(native: Native, device: string): string | undefined {
  const operator = native.find('alitok::cuda_kernels', '');
  if (operator === null) return 'the bridge was built without them';
  return (native.call(operator, device) as string) || undefined;
}

/**
 * Starts the libtorch engine. Returns a description: the library, its version, the device and the precision.
 * Throws EngineError if it is not built, does not load, or has no such device.
 */
export function startLibtorch(options: EngineOptions & { threads: number }): string {
  const { threads, precision = 'float32' } = options;
  const { tf32 = false, deterministic = false } = options;
  setDefaults(environment(deterministic));
  const native = loadNative();
  const device = chooseDevice(options, native.cudaDevices(), 'this PyTorch', 'install a PyTorch with CUDA');
  native.setThreads(threads);
  native.deterministic(deterministic);
  if (!tf.findBackendFactory('libtorch')) {
    registerKernels();
    tf.registerBackend('libtorch', () => new LibtorchBackend(native), 4);
    const memory = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
    native.call(native.find('alitok::keep_memory', '')!, Math.floor(memory * KEPT_MEMORY));
  }
  const missing = device === 'cpu' ? undefined : withoutKernels(native, device);
  const ownKernels = device !== 'cpu' && missing === undefined;
  const { warn = (message: string) => process.emitWarning(message) } = options;
  Object.assign(tf.engine().findBackend('libtorch'), { device, precision, tf32, ownKernels, warn });
  const products = precision === 'bf16' ? ', products in bf16' : tf32 ? ', products in TF32' : '';
  const kernels = missing === undefined ? '' : `, without alitok's own kernels: ${missing}`;
  return `PyTorch ${native.version} on ${device}${products}${kernels}`;
}
