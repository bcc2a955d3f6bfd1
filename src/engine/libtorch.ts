import { totalmem } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../errors.js';
import { LibtorchBackend } from './libtorch/backend.js';
import { loadNative, type Native } from './libtorch/bridge.js';
import { registerKernels } from './libtorch/kernels/index.js';
import type { EngineOptions } from './options.js';

/**
 * How long PyTorch's threads (GNU OpenMP) stay awake between two operations, in rounds: some 50 µs. Its own value is far
 * longer, and takes the processor from whatever else runs.
 */
const SPINS = '20000';

/** What the libraries read when they are loaded, as far as nobody else has said it. */
function setEnvironment(deterministic: boolean): void {
  const { env } = process;
  env.GOMP_SPINCOUNT ??= SPINS;
  // Steps of many sizes leave gaps in blocks of fixed size, so that a batch may not fit which would; pages that are mapped as
  // they are needed leave none. The first name is PyTorch's since 2.9, the second the one that it still reads.
  if (!env.PYTORCH_ALLOC_CONF) env.PYTORCH_CUDA_ALLOC_CONF ??= 'expandable_segments:True';
  if (deterministic) env.CUBLAS_WORKSPACE_CONFIG ??= ':4096:8'; // its only workspaces that keep an order of sums
}

/** The share of the machine's memory that tensors may keep for those to come. */
const KEPT_MEMORY = 1 / 4;

/** The devices of PyTorch that `--device` can name. Throws EngineError where it does not load. */
export function libtorchDevices(): string[] {
  const count = loadNative().cudaDevices();
  return ['cpu', ...Array.from({ length: count }, (_, i) => `cuda:${i}`)];
}

/**
 * `cuda` is the first CUDA device, or the one of this process's rank on this machine; without a name it is taken where
 * there is one. Throws EngineError.
 */
function chooseDevice(native: Native, wanted: string | undefined, localRank = 0): string {
  const devices = native.cudaDevices();
  const own = `cuda:${devices > 0 ? localRank % devices : 0}`;
  const device = wanted === 'cuda' ? own : (wanted ?? (devices > 0 ? own : 'cpu'));
  const [, index] = /^cuda:(\d+)$/.exec(device) ?? [];
  if (device !== 'cpu' && index === undefined)
    throw new EngineError(`there is no ${option('device', device)}; choose cpu, cuda, or cuda:N`);
  if (index !== undefined && Number(index) >= devices)
    throw new EngineError(
      `${option('device', wanted)}: this PyTorch sees ${devices === 0 ? 'no CUDA device' : `${devices} CUDA devices`}; choose ${devices === 0 ? `${option('device', 'cpu')}, or install a PyTorch with CUDA` : `cuda:0 to cuda:${devices - 1}`}`,
    );
  return device;
}

/** Why a device has none of our own kernels (native/cuda); undefined where it has them. */
function withoutKernels(native: Native, device: string): string | undefined {
  const asked = native.find('alitok::cuda_kernels', '');
  if (asked === null) return 'the bridge was built without them';
  return (native.call(asked, device) as string) || undefined;
}

/**
 * Starts the libtorch engine. Returns the library, its version, and on what and how it computes.
 * Throws EngineError where it is not built, does not load, or has no such device.
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
