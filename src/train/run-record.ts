import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { outputError, writeFileAtomic } from '../formats/atomic.js';
import { openMetricsLog } from './metrics-log.js';
import type { RunFiles } from './run-folder.js';
import { countsHistogram, openEventLog } from './tensorboard.js';
import type { Metrics } from './trainer.js';

/** What a preview leaves: numbers for the metrics log, PNG pictures by name, and how often each code was chosen. */
export interface Shown {
  metrics: Metrics;
  pictures: Record<string, Buffer>;
  codeCounts?: ArrayLike<number>;
}

/** Everything that a run records while it goes on: the metrics log, pictures, counts, and all of it for TensorBoard. */
export interface RunRecord {
  /** Adds a line to the metrics log, with the time of now. @throws OutputError where the disk is full or failing */
  append(row: { step: number; [name: string]: number }): Promise<void>;
  /** Records what a preview showed. @throws OutputError where the disk is full or failing */
  show(step: number, shown: Shown): Promise<void>;
}

/** The path of a picture of a run. */
export function picturePath(images: string, name: string, step: number): string {
  return join(images, `${name}-${String(step).padStart(7, '0')}.png`);
}

/**
 * Opens the record of a run that has made `lastStep` steps; what it has of later steps is dropped, since those are made
 * again. `tensorboard` says whether events are written too.
 * @throws OutputError where it cannot be written, DataError where a log that is there is damaged
 */
export async function openRunRecord(
  files: RunFiles,
  lastStep: number,
  { tensorboard }: { tensorboard: boolean },
): Promise<RunRecord> {
  const metrics = await openMetricsLog(files.metrics, lastStep);
  const openCounts = () => openMetricsLog(files.codeCounts, lastStep);
  let counts = existsSync(files.codeCounts) ? await openCounts() : undefined;
  const events = tensorboard ? await openEventLog(files.tensorboard, lastStep) : undefined;
  const append: RunRecord['append'] = async ({ step, ...values }) => {
    await metrics.append({ step, ...values });
    await events?.append(
      step,
      Object.entries(values).map(([tag, scalar]) => ({ tag, scalar })),
    );
  };
  return {
    append,
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
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw outputError(folder, error);
  }
  for (const [name, png] of Object.entries(pictures))
    await writeFileAtomic(picturePath(folder, name, step), png);
}
