import type { Config } from '../config/schema.js';
import { readCheckpointState } from './checkpoint.js';
import { listCheckpoints, removeCheckpoint } from './layout.js';

/** Which checkpoints of a run are kept besides the newest. */
export type Retention = Pick<Config['logging'], 'keep_checkpoints' | 'keep_every' | 'keep_best'>;

/** Metrics for which lower is better. */
const FALLING = ['loss'];

interface Kept {
  step: number;
  folder: string;
  /** Saved because the run was stopped, not because it was due. */
  interrupted: boolean;
  /** Value of the metric `keep_best`. */
  metric?: number;
}

/**
 * Removes all checkpoints of a run except the last `keep_checkpoints`, those of every `keep_every` steps, and the best by the
 * metric `keep_best`, measured at their step. One that was saved because the run was stopped is kept only while it is the
 * newest, so that a resumed run ends with the same checkpoints as an uninterrupted one. Other files in a checkpoint's
 * folder stay.
 */
export async function pruneCheckpoints(run: string, retention: Retention): Promise<void> {
  const { keep_checkpoints, keep_every, keep_best } = retention;
  const all = await Promise.all(
    (await listCheckpoints(run)).map(async ({ step, folder }): Promise<Kept> => {
      // An unreadable checkpoint counts like any other. It is checked when it is loaded.
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

/** The best checkpoint; of equal ones the first. */
function bestOf(checkpoints: readonly Kept[], metric: string | null): Kept | undefined {
  const better = (a: number, b: number) => (FALLING.includes(metric!) ? a < b : a > b);
  return checkpoints
    .filter((one) => one.metric !== undefined)
    .reduce<Kept | undefined>(
      (best, one) => (best && !better(one.metric!, best.metric!) ? best : one),
      undefined,
    );
}
