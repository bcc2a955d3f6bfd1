/** The control block in 32-bit words: the number of the current call, its kernel, how many threads have finished, whether one failed. */
export type Control = Int32Array;
export const [GENERATION, KERNEL, FINISHED, FAILED] = [0, 1, 2, 3];
/** Byte offset of the call's arguments in the block, as float64: their number, then each. */
const ARGUMENTS = 16;
/** The most arguments of a call. */
const MAX_ARGUMENTS = 63;
export const CONTROL_BYTES = ARGUMENTS + (1 + MAX_ARGUMENTS) * 8;

export interface WorkerData {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  /** Names of the module's exports; a call gives the index of its kernel. */
  kernels: string[];
  /** Address of the control block. */
  control: number;
  part: number;
  parts: number;
}

/** The two views of the control block at `address`. */
export function controlViews(
  memory: WebAssembly.Memory,
  address: number,
): { state: Control; values: Float64Array } {
  return {
    state: new Int32Array(memory.buffer, address, ARGUMENTS / 4),
    values: new Float64Array(memory.buffer, address + ARGUMENTS, 1 + MAX_ARGUMENTS),
  };
}
