import { damaged } from './damaged.js';
import { PickleError, type PickleValue, type PickleWorld, unpickle } from './unpickle.js';

/** What both of PyTorch's file formats hold. */
export interface Archive {
  readonly value: PickleValue;
  readonly metadata: Readonly<Record<string, string>>;
  /** Where in the file a storage that the value speaks of begins. Throws CheckpointError. */
  position(key: string): Promise<number>;
}

/** Enough for a hundred thousand tensors. */
export const MAX_PICKLE_BYTES = 2 ** 24;

/** `unpickle` with errors that name the file. @throws CheckpointError */
export function unpickleAt(
  path: string,
  bytes: Uint8Array,
  start: number,
  world: PickleWorld,
): { value: PickleValue; end: number } {
  try {
    return unpickle(bytes, start, world);
  } catch (error) {
    if (error instanceof PickleError) throw damaged(path, error.message, { cause: error });
    throw error;
  }
}
