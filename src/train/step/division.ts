import type { Group } from '../../engine/distributed/group.js';
import { ConfigError } from '../../errors.js';

/** How a step's batch is divided: each process takes one stretch of it, and cuts that into micro-batches. */
export interface Division {
  /** Images of a micro-batch. */
  micro: number;
  /** Micro-batches of one process: gradient accumulation. */
  parts: number;
  /** Index in the batch of this process's first image. */
  first: number;
  /** Images of this process. */
  own: number;
}

/** Divides the batch of a config's section, which may have no `accumulation`. @throws ConfigError where it is uneven */
export function divide(
  section: string,
  { batch_size, accumulation }: { batch_size: number; accumulation?: number },
  { rank, size }: Group,
): Division {
  const parts = accumulation ?? 1;
  const micro = batch_size / parts / size;
  if (!Number.isInteger(micro)) {
    const accumulating = accumulation === undefined ? '' : ` with ${section}.accumulation ${accumulation}`;
    throw new ConfigError(
      `${section}.batch_size is ${batch_size}, which ${size} processes${accumulating} cannot divide evenly; make it a multiple of ${size * parts}`,
    );
  }
  const own = micro * parts;
  return { micro, parts, first: rank * own, own };
}
