import { CheckpointError } from '../../errors.js';

/** What to say of a file that is not as PyTorch writes them. */
export function damaged(path: string, what: string, options?: ErrorOptions): CheckpointError {
  return new CheckpointError(
    `${path} is not a valid PyTorch file: ${what}; fetch or write it again`,
    options,
  );
}
