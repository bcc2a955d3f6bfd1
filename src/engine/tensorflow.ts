import { availableParallelism } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import { EngineError, option } from '../errors.js';
import { chooseDevice, deviceNames } from './devices.js';
import { setDefaults } from './environment.js';
import type { EngineOptions } from './options.js';
import {
  type Binding,
  BUILD,
  failure,
  loadBackend,
  loadDownloaded,
  loadNative,
  type Native,
  type NodePackage,
  notBuilt,
  requirePackage,
} from './tensorflow/binding.js';
import { configProto } from './tensorflow/config-proto.js';
import { registerKernels } from './tensorflow/kernels/index.js';

/** Whether the kernel of `generatorStep` can do a step: rotary embeddings need pairs of channels. */
const takesStep = (_sequences: number, _widths: readonly number[], headWidth: number) => headWidth % 2 === 0;

/** TensorFlow as it was started. A process starts it once. */
interface Started {
  binding: Binding;
  threads: number;
  /** The device that was chosen, and the one that it found: `cpu` if it does not see the GPU. */
  chosen: string;
  device: string;
  /** Our module; undefined if tfjs-node's own is used. */
  native?: Native;
}

let started: Started | undefined;

/** The log level at which TensorFlow prints only what ends the process. It reports much at every start. */
const QUIET = '3';

/** TensorFlow with its version and that of its CUDA, as messages name it. */
function describe({ version, cuda }: Pick<Native, 'version' | 'cuda'>): string {
  const built = { '': ' (built without CUDA)', unknown: '' }[cuda] ?? ` (CUDA ${cuda})`;
  return `TensorFlow ${version}${built}`;
}

const REMEDY =
  'install one with CUDA (pip install tensorflow[and-cuda]) and run "npm run build:tensorflow" again';

/** What helps if TensorFlow sees no CUDA device. */
const remedyFor = ({ cuda }: Pick<Native, 'cuda'>) =>
  cuda === '' ? REMEDY : `see with ${option('verbose')} what TensorFlow says about it`;

/** The number of CUDA devices that TensorFlow can be started with. */
const countDevices = (native: Native) => (native.cuda === '' ? 0 : native.cudaDevices());

/** Loads our module and TensorFlow. Throws EngineError if they do not load. */
function load(verbose = false): Native | undefined {
  setDefaults({ TF_CPP_MIN_LOG_LEVEL: verbose ? undefined : QUIET });
  return loadNative(verbose);
}

/** The devices that TensorFlow can use. Throws EngineError if it is not built or does not load. */
export function tensorflowDevices(): string[] {
  const native = started?.native ?? load();
  if (!native) throw notBuilt();
  return deviceNames(countDevices(native));
}

/** Starts TensorFlow through our module, on the device that the options choose. Throws EngineError. */
function startNative(native: Native, options: EngineOptions & { threads: number }): Started {
  const { threads } = options;
  const name = describe(native);
  const remedy = remedyFor(native);
  const device = chooseDevice(options, countDevices(native), name, remedy);
  let binding: ReturnType<Native['start']>;
  try {
    binding = native.start(configProto({ threads, device }));
  } catch (cause) {
    throw failure(cause, option('device', device));
  }
  const hasGpu = binding.devices.some((one) => one.includes(':GPU:'));
  return { binding, threads, chosen: device, device: hasGpu ? device : 'cpu', native };
}

/** Starts TensorFlow through the module that tfjs-node has downloaded, which takes no options. */
function startDownloaded(module: string): Started {
  const binding = loadDownloaded(module);
  const device = binding.isUsingGpuDevice() ? 'cuda' : 'cpu';
  return { binding, threads: availableParallelism(), chosen: device, device };
}

/** Makes TensorFlow compute on the device that the options choose, if it was started with it. Throws EngineError if not. */
function switchDevice({ binding, native, device: own, chosen }: Started, options: EngineOptions): string {
  const { device: wanted = own } = options;
  if (!native) {
    if (wanted === own) return own;
    throw new EngineError(
      `${option('device', wanted)}: the TensorFlow ${binding.TF_Version} that tfjs-node has downloaded runs on ${own}; choose its devices with CUDA_VISIBLE_DEVICES in the environment, or install TensorFlow and ${BUILD}`,
    );
  }
  if (wanted !== 'cpu' && (own === 'cpu' || wanted !== 'cuda')) {
    const count = own === chosen ? countDevices(native) : 0; // TensorFlow may not use a device that the driver reports
    const device = chooseDevice({ ...options, device: wanted }, count, describe(native), remedyFor(native));
    if (device !== own)
      throw new EngineError(
        `${option('device', wanted)}: this process has started TensorFlow on ${own}, and cannot change its GPU; start another process`,
      );
  }
  const device = wanted === 'cpu' ? 'cpu' : own;
  native.computeOnCpu(device === 'cpu');
  return device;
}

/**
 * Starts the tensorflow engine: tfjs-node's backend on TensorFlow, with our kernels. Once started, its threads and its GPU do
 * not change. Returns its number of threads, and a description: the library, its version, the device and the package.
 * Throws EngineError if it is not built, does not load, or has no such device.
 * @param found the package
 */
export function startTensorFlow(
  options: EngineOptions = {},
  found: NodePackage = requirePackage(),
): { description: string; threads: number } {
  const { threads = availableParallelism(), verbose = false } = options;
  if (!started) {
    const native = load(verbose);
    if (native) started = startNative(native, { ...options, threads });
    else if (found.downloaded) started = startDownloaded(found.downloaded);
    else throw notBuilt();
  }
  const { binding, native } = started;
  const device = switchDevice(started, options);
  if (!tf.findBackendFactory('tensorflow')) {
    const Backend = loadBackend(found);
    registerKernels();
    const shielded = native !== undefined;
    const createBackend = () => Object.assign(new Backend(binding, found.name), { takesStep, shielded });
    tf.registerBackend('tensorflow', createBackend, 3);
  }
  Object.assign(tf.engine().findBackend('tensorflow'), { device });
  const library = native ? describe(native) : `TensorFlow ${binding.TF_Version}`;
  return {
    description: `${library} on ${device}, through ${found.name} ${found.version}`,
    threads: started.threads,
  };
}
