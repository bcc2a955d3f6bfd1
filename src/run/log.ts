import { existsSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { makeFolder, writeOwnFile } from '../files/atomic.js';
import { countsHistogram, openEventLog } from './events.js';
import type { Metrics } from './metrics.js';
import { openMetricsLog, type Timing } from './metrics.js';
import type { RunFiles } from './record.js';

/** The results of a preview: metrics, PNG pictures by name, and how often each code was chosen. */
export interface Shown {
  metrics: Metrics;
  pictures: Record<string, Buffer>;
  codeCounts?: ArrayLike<number>;
}

/** What a run records: the metrics log, pictures and code counts, and the same for TensorBoard. */
export interface RunLog {
  /** Appends a line to the metrics log, with the current time. @throws OutputError if the disk is full or failing */
  append(row: { step: number; [name: string]: number }, timing?: Timing): Promise<void>;
  /** Records the results of a preview. @throws OutputError if the disk is full or failing */
  show(step: number, shown: Shown): Promise<void>;
  /** Flushes all lines to the disk. @throws OutputError if that fails */
  sync(): Promise<void>;
}

/** The log of all ranks but 0. */
export const NO_LOG: RunLog = { append: async () => {}, show: async () => {}, sync: async () => {} };

function picturePath(images: string, name: string, step: number): string {
  return join(images, `${name}-${String(step).padStart(7, '0')}.png`);
}

/**
 * Opens the logs of a run that has completed `lastStep` steps. What they have of later steps is dropped, since those are
 * repeated. `tensorboard` says whether events are written too.
 * @throws OutputError if they cannot be written, DataError if an existing log is damaged
 */
export async function openRunLog(
  files: RunFiles,
  lastStep: number,
  { tensorboard }: { tensorboard: boolean },
): Promise<RunLog> {
  const metrics = await openMetricsLog(files.metrics, lastStep);
  const openCounts = () => openMetricsLog(files.codeCounts, lastStep);
  let counts = existsSync(files.codeCounts) ? await openCounts() : undefined;
  const events = tensorboard ? await openEventLog(files.tensorboard, lastStep) : undefined;
  const append: RunLog['append'] = async ({ step, ...values }, timing = {}) => {
    await metrics.append({ step, ...values }, timing);
    await events?.append(
      step,
      Object.entries({ ...values, ...timing }).map(([tag, scalar]) => ({ tag, scalar })),
    );
  };
  return {
    append,
    async sync() {
      await metrics.sync();
      await counts?.sync();
    },
    async show(step, { metrics: values, pictures, codeCounts }) {
      await append({ step, ...values });
      await savePictures(files.images, step, pictures);
      if (codeCounts) {
        counts ??= await openCounts();
        await counts.append({ step, counts: Array.from(codeCounts) });
      }
      if (!events) return;
      const images = Object.entries(pictures).map(async ([tag, png]) => {
        const { width, height } = await sharp(png).metadata();
        return { tag, png, width, height };
      });
      await events.append(step, await Promise.all(images));
      if (codeCounts)
        await events.append(step, [{ tag: 'code_counts', histogram: countsHistogram(codeCounts) }]);
    },
  };
}

async function savePictures(folder: string, step: number, pictures: Record<string, Buffer>): Promise<void> {
  await makeFolder(folder);
  for (const [name, png] of Object.entries(pictures))
    await writeOwnFile(picturePath(folder, name, step), png);
}
