import type { Config } from '../config/schema.js';
import { readCheckpointState } from './checkpoint.js';
import { listCheckpoints, removeCheckpoint } from './layout.js';

/** Which checkpoints of a run are kept beside the newest. */
export type Retention = Pick<Config['logging'], 'keep_checkpoints' | 'keep_every' | 'keep_best'>;

/** Metrics of which less is better. */
const FALLING = ['loss'];

interface Kept {
  step: number;
  folder: string;
  /** Saved between two that were due. */
  interrupted: boolean;
  /** The metric that the best is chosen by. */
  metric?: number;
}

/**
 * Removes all checkpoints of a run but the last `keep_checkpoints`, those of every `keep_every` steps, and the best by
 * the metric `keep_best`, measured at their step. One that was saved because the run was stopped is kept only until it
 * is no longer the newest, so that in the end there are those of a run that was not. What somebody else put beside a
 * checkpoint's files stays.
 */
export async function pruneCheckpoints(run: string, retention: Retention): Promise<void> {
  const { keep_checkpoints, keep_every, keep_best } = retention;
  const all = await Promise.all(
    (await listCheckpoints(run)).map(async ({ step, folder }): Promise<Kept> => {
      // One that cannot be read counts like any other: whether it is whole is asked when it is to be loaded.
      const note = await readCheckpointState(folder).catch(() => undefined);
      const metric = keep_best === null ? undefined : note?.metrics?.[keep_best];
      return { step, folder, interrupted: note?.interrupted ?? false, metric: metric ?? undefined };
    }),
  );
  const due = all.filter(({ interrupted }) => !interrupted);
  const keep = new Set([...all.slice(-1), ...due.slice(-keep_checkpoints)]);
  for (const one of due) if (keep_every > 0 && one.step % keep_every === 0) keep.add(one);
  const best = bestOf(due, keep_best);
  if (best) keep.add(best);
  for (const one of all) if (!keep.has(one)) await removeCheckpoint(one.folder);
}

/** The first of the best. */
function bestOf(checkpoints: readonly Kept[], metric: string | null): Kept | undefined {
  const better = (a: number, b: number) => (FALLING.includes(metric!) ? a < b : a > b);
  return checkpoints
    .filter((one) => one.metric !== undefined)
    .reduce<Kept | undefined>(
      (best, one) => (best && !better(one.metric!, best.metric!) ? best : one),
      undefined,
    );
}
