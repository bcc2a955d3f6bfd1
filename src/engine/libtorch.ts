import { totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../errors.js';
import { LibtorchBackend } from './libtorch/backend.js';
import { loadNative, type Native } from './libtorch/bridge.js';
import { registerKernels } from './libtorch/kernels/index.js';
import type { EngineOptions } from './options.js';

/**
 * How long PyTorch's threads (GNU OpenMP) spin between two operations, in iterations: about 50 µs. The default is far longer
 * and takes the processor from other programs.
 */
const SPINS = '20000';

/** Sets environment variables that the libraries read when they are loaded, unless the user has set them. */
function setEnvironment(deterministic: boolean): void {
  const { env } = process;
  env.GOMP_SPINCOUNT ??= SPINS;
  // Steps of many sizes fragment memory in blocks of fixed size until a batch no longer fits; pages that are mapped on demand
  // do not fragment. PyTorch has used the first name since 2.9, and still reads the second.
  if (!env.PYTORCH_ALLOC_CONF) env.PYTORCH_CUDA_ALLOC_CONF ??= 'expandable_segments:True';
  if (deterministic) env.CUBLAS_WORKSPACE_CONFIG ??= ':4096:8'; // the only workspaces with a fixed order of sums
}

/** The share of the machine's memory that the allocator may cache for later tensors. */
const KEPT_MEMORY = 1 / 4;

/** The devices that PyTorch can use. Throws EngineError if it does not load. */
export function libtorchDevices(): string[] {
  const count = loadNative().cudaDevices();
  return ['cpu', ...Array.from({ length: count }, (_, i) => `cuda:${i}`)];
}

/**
 * `cuda` is the first CUDA device, or the one for this process's rank on this machine. It is the default if there is a CUDA
 * device. Throws EngineError.
 */
function chooseDevice(native: Native, wanted: string | undefined, localRank = 0): string {
  const devices = native.cudaDevices();
  const own = `cuda:${devices > 0 ? localRank % devices : 0}`;
  const device = wanted === 'cuda' ? own : (wanted ?? (devices > 0 ? own : 'cpu'));
  const [, index] = /^cuda:(\d+)$/.exec(device) ?? [];
  if (device !== 'cpu' && index === undefined)
    throw new EngineError(`${option('device', device)} is not a device; choose cpu, cuda, or cuda:N`);
  if (index !== undefined && Number(index) >= devices)
    throw new EngineError(
      `${option('device', wanted)}: this PyTorch sees ${devices === 0 ? 'no CUDA device' : `${devices} CUDA devices`}; choose ${devices === 0 ? `${option('device', 'cpu')}, or install a PyTorch with CUDA` : `cuda:0 to cuda:${devices - 1}`}`,
    );
  return device;
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
  setEnvironment(deterministic);
  const native = loadNative();
  const device = chooseDevice(native, options.device, options.localRank);
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
