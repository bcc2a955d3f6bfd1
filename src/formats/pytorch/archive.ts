import { CheckpointError } from '../../errors.js';
import { PickleError, type PickleValue, type PickleWorld, unpickle } from './unpickle.js';

/** What both of PyTorch's file formats contain. */
export interface Archive {
  readonly value: PickleValue;
  readonly metadata: Readonly<Record<string, string>>;
  /** Fills `into` from byte `start` of a storage that the value refers to. @throws CheckpointError */
  read(key: string, start: number, into: Uint8Array): Promise<void>;
}

/** The error for a file that PyTorch would not write like this. */
export function damaged(path: string, what: string, options?: ErrorOptions): CheckpointError {
  return new CheckpointError(
    `${path} is not a valid PyTorch file: ${what}; fetch or write it again`,
    options,
  );
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
