import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { BackendWasm, setThreadsCount } from '@tensorflow/tfjs-backend-wasm';
import { EngineError } from '../../errors.js';
import { builtFile, tfjsWasmFolder } from './files.js';
import { Pool } from './pool.js';

/** Pages of 64 KiB at the start, and the most there can be. */
const PAGES = { initial: 1024, maximum: 65536 };
/** Bytes that 32-bit addresses can reach: 4 GiB. */
const ADDRESSABLE = 2 ** 32;
/** Tensors are padded to whole groups of four floats, so that kernels can read and write whole groups. */
const GROUP_BYTES = 16;

/** The parts of tfjs's Emscripten module that are used here. */
interface WasmModule {
  _malloc(bytes: number): number;
  _free(address: number): void;
  HEAPU8: Uint8Array;
  cwrap(name: string, result: string | null, args: string[]): (...args: number[]) => number;
  tfjs: Record<string, (...args: number[]) => number>;
}

type DataId = Parameters<tf.KernelBackend['disposeData']>[0];

interface TensorData {
  id: number;
  memoryOffset: number | null;
  shape: number[];
  dtype: tf.DataType;
  refCount: number;
}

/** tfjs's WebAssembly backend with a shared memory and our kernels. */
export class WasmBackend extends BackendWasm {
  pool!: Pool;

  constructor(private readonly module: WasmModule) {
    super(module as never);
  }

  /** Allocates memory that belongs to no tensor. Throws EngineError if there is none left. */
  allocate(bytes: number): number {
    const address = bytes < ADDRESSABLE ? this.module._malloc(bytes) >>> 0 : 0;
    if (address === 0) {
      const held = (tf.memory().numBytes / 2 ** 20).toFixed(0);
      throw new EngineError(
        `out of memory: ${(bytes / 2 ** 20).toFixed(0)} MiB more than the ${held} MiB in use; the wasm engine has 4 GiB: lower the batch size, or raise accumulation`,
      );
    }
    return address;
  }

  free(address: number): void {
    this.module._free(address);
  }

  /** Like tfjs's own, but checks the allocation and pads it to a whole group. */
  override move(
    dataId: DataId,
    values: tf.backend_util.BackendValues,
    shape: number[],
    dtype: tf.DataType,
    refCount: number,
  ): void {
    if (dtype === 'string') {
      super.move(dataId, values, shape, dtype as never, refCount);
      return;
    }
    const self = this as unknown as { dataIdNextNumber: number; dataIdMap: tf.DataStorage<TensorData> };
    const id = self.dataIdNextNumber++;
    const size = tf.util.sizeFromShape(shape);
    const bytes = size * tf.util.bytesPerElement(dtype);
    const memoryOffset = this.allocate(Math.ceil((bytes + 1) / GROUP_BYTES) * GROUP_BYTES);
    self.dataIdMap.set(dataId, { id, memoryOffset, shape, dtype, refCount });
    this.module.tfjs.registerTensor(id, size, memoryOffset);
    if (values === null) return;
    const array = values as Uint8Array;
    this.module.HEAPU8.set(new Uint8Array(array.buffer, array.byteOffset, bytes), memoryOffset);
  }

  /** The address of a tensor's first element. */
  address({ dataId }: tf.TensorInfo): number {
    return this.getMemoryOffset(dataId);
  }

  /** A new tensor of undefined values. */
  output(shape: readonly number[], dtype: tf.DataType = 'float32'): tf.TensorInfo {
    return this.makeOutput([...shape], dtype as never) as tf.TensorInfo;
  }
}

/** Starts tfjs's shared-memory build and the pool of threads on its memory. Throws EngineError if it is not built. */
export async function createBackend(threads: number): Promise<WasmBackend> {
  const folder = tfjsWasmFolder();
  const main = join(folder, 'tfjs-backend-wasm-threaded-simd.js');
  const memory = new WebAssembly.Memory({ ...PAGES, shared: true });
  const factory = createRequire(import.meta.url)(main) as (options: object) => Promise<WasmModule>;
  const listeners = (['uncaughtException', 'unhandledRejection'] as const).map(
    (event) => [event, process.listeners(event as 'uncaughtException')] as const,
  );
  const module = await factory({
    wasmMemory: memory,
    locateFile: (name: string) =>
      name.endsWith('.worker.js') ? builtFile('pthread-stand-in.js') : join(folder, name),
    mainScriptUrlOrBlob: main,
  });
  // Emscripten adds handlers of unhandled errors; these are the program's to handle.
  for (const [event, before] of listeners)
    for (const listener of process.listeners(event as 'uncaughtException'))
      if (!before.includes(listener)) process.removeListener(event, listener);
  const wrap = (name: string, count: number) => module.cwrap(name, null, new Array(count).fill('number'));
  module.tfjs = {
    init: wrap('init', 0),
    initWithThreadsCount: wrap('init_with_threads_count', 1),
    getThreadsCount: module.cwrap('get_threads_count', 'number', []),
    registerTensor: wrap('register_tensor', 3),
    disposeData: wrap('dispose_data', 1),
    dispose: wrap('dispose', 0),
  };
  setThreadsCount(1);
  const backend = new WasmBackend(module);
  backend.pool = await Pool.start(
    threads,
    memory,
    (bytes) => backend.allocate(bytes),
    (address) => backend.free(address),
  );
  return backend;
}
