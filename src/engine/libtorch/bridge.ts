import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { EngineError, LESS_MEMORY, option } from '../../errors.js';
import { formatBytes } from '../../text.js';

/** A PyTorch tensor: its index in the bridge's table. */
export type TensorId = number;
type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Int8Array | Uint16Array;
/** An argument of an operator: a tensor, a number, a flag or a list of them, as its schema says; null for None. */
export type Argument =
  | TensorId
  | boolean
  | string
  | null
  | undefined
  | readonly (TensorId | boolean | null)[];

/** How many numbers our operators on the CPU process at a time. */
export const LANES = 16;
/** Up to this many rows, reading the weights takes most of a product's time (native/few_rows.cc). */
export const FEW_ROWS = 32;

/** The native module (native/bridge.cc). */
export interface Native {
  /** PyTorch's version when the bridge was built. */
  version: string;
  /** The version of the library that was loaded. */
  runtimeVersion: string;
  find(name: string, overload: string): number | null;
  /** An operator's schema as PyTorch writes it. */
  schema(operator: number): string;
  // biome-ignore lint/suspicious/noExplicitAny: an operator's result has the type that its schema says
  call(operator: number, ...args: Argument[]): any;
  fromArray(values: TypedArray, shape: readonly number[], device: string): TensorId;
  read(tensor: TensorId): Float32Array | Int32Array | Uint8Array;
  readAsync(tensor: TensorId): Promise<Float32Array | Int32Array | Uint8Array>;
  free(tensor: TensorId): void;
  shape(tensor: TensorId): number[];
  setThreads(threads: number): void;
  cudaDevices(): number;
  allowTF32(allowed: boolean): void;
  /** Whether CUDA uses only algorithms that sum in the same order each time. */
  deterministic(wanted: boolean): void;
  count(): number;
}

/** In dist, also when a test runs the sources. */
const MODULE = fileURLToPath(new URL('../../../dist/engine/libtorch/bridge.node', import.meta.url));

const REBUILD = 'run "npm run build:libtorch" again';

/** The part of a version that must be the same at build time and at run time: 2.6 of 2.6.0+cu124. */
const release = (version: string) => version.split('.').slice(0, 2).join('.');

/** Loads the native module. Throws EngineError with the remedy if it is not built or does not fit the library. */
export function loadNative(module = MODULE): Native {
  if (!existsSync(module))
    throw new EngineError(
      `${option('engine', 'libtorch')} is not built: install libtorch (Debian, Ubuntu: apt-get install libtorch-dev; anywhere: pip install torch) and run "npm run build:libtorch"`,
    );
  let native: Native;
  try {
    native = createRequire(import.meta.url)(module) as Native;
  } catch (cause) {
    const why = (cause as Error).message.split('\n')[0];
    const what = /undefined symbol|version `.*' not found/.test(why)
      ? 'the bridge was built against another libtorch than the one that is here'
      : 'the libtorch that the bridge was built against does not load';
    throw new EngineError(`${what}; ${REBUILD}: ${why}`, { cause });
  }
  const { version, runtimeVersion } = native;
  if (release(runtimeVersion) !== release(version))
    throw new EngineError(
      `the bridge was built for PyTorch ${version}, but finds PyTorch ${runtimeVersion}; ${REBUILD}`,
    );
  return native;
}

/** PyTorch's first line says what is wrong; the rest is a C++ stack trace. */
const firstLine = (text: string) => text.split('\n')[0];

/** Out-of-memory messages of PyTorch's allocators, CUDA's libraries and JavaScript. */
const NO_MEMORY = /out of memory|can't allocate memory|not enough memory|bad_alloc|alloc(ation)?[ _]failed/i;

/** Large numbers of bytes in other units. */
const readable = (text: string) =>
  text.replace(/\b(\d{7,}) bytes\b/g, (_, bytes) => formatBytes(Number(bytes)));

/**
 * An error of one line for a failure in libtorch, with libtorch's own message. If memory ran out, it says what to lower.
 * @param doing what failed, where the message does not say
 */
export function failure(cause: unknown, doing?: string): EngineError {
  const { message } = cause as Error;
  const text = `libtorch: ${doing ? `${doing}: ` : ''}${readable(firstLine(message))}`;
  const remedy = NO_MEMORY.test(message) ? `; ${LESS_MEMORY}` : '';
  return new EngineError(remedy ? text.replace(/\.$/, '') + remedy : text, { cause });
}
