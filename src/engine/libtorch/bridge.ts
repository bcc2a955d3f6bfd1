import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { EngineError } from '../../errors.js';

/** A tensor of PyTorch: its place in the bridge's table. */
export type TensorId = number;
type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Int8Array | Uint16Array;
/** What an operator takes, by its schema: tensors, numbers, flags, lists of them; null for None. */
export type Argument =
  | TensorId
  | boolean
  | string
  | null
  | undefined
  | readonly (TensorId | boolean | null)[];

/** The native module (native/bridge.cc). */
export interface Native {
  version: string;
  find(name: string, overload: string): number | null;
  // biome-ignore lint/suspicious/noExplicitAny: an operator's result has the type that its schema says
  call(operator: number, ...args: Argument[]): any;
  fromArray(values: TypedArray, shape: readonly number[], device: string): TensorId;
  read(tensor: TensorId): Float32Array | Int32Array | Uint8Array;
  readAsync(tensor: TensorId): Promise<Float32Array | Int32Array | Uint8Array>;
  free(tensor: TensorId): void;
  shape(tensor: TensorId): number[];
  setThreads(threads: number): void;
  cudaDevices(): number;
  count(): number;
}

/** Beside the compiled code, also when a test runs the sources. */
const MODULE = fileURLToPath(new URL('../../../dist/engine/libtorch/bridge.node', import.meta.url));

/** Loads the native module. Throws EngineError, with the remedy, where it is not built or does not fit. */
export function loadNative(): Native {
  if (!existsSync(MODULE))
    throw new EngineError(
      '--engine libtorch is not built: install libtorch (Debian, Ubuntu: apt-get install libtorch-dev; anywhere: pip install torch) and run "npm run build:libtorch"',
    );
  try {
    return createRequire(import.meta.url)(MODULE) as Native;
  } catch (cause) {
    throw new EngineError(
      `the libtorch that the bridge was built against does not load; run "npm run build:libtorch" again: ${(cause as Error).message.split('\n')[0]}`,
      { cause },
    );
  }
}
