import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DataError } from '../errors.js';
import { writeFileAtomic } from '../formats/atomic.js';
import { readMetrics } from '../train/metrics-log.js';
import { curvesSheet } from './curves.js';

/** What is drawn, if a run has it: the metric's name, its panel's title and axis. */
const PANELS: { metric: string; title: string; yLabel: string; logY?: boolean }[] = [
  { metric: 'loss', title: 'Training loss', yLabel: 'loss', logY: true },
  { metric: 'psnr', title: 'PSNR of training batches', yLabel: 'dB' },
  { metric: 'validation_psnr', title: 'PSNR of held-out images', yLabel: 'dB' },
  { metric: 'codebook_usage', title: 'Codebook entries in use', yLabel: 'share' },
  { metric: 'accuracy', title: 'Codes predicted right', yLabel: 'share' },
  { metric: 'lr', title: 'Learning rate', yLabel: 'lr' },
];

/** `tokenizer/stage1` for a run in such a folder, else its folder's name. */
function nameOf(run: string): string {
  const name = basename(run);
  return /^stage\d$/.test(name) ? `${basename(dirname(run))} ${name}` : name;
}

/** The run folders that `path` means: itself, or the two stages of a tokenizer run. Throws DataError. */
export function runFolders(path: string): string[] {
  const folders = [path, join(path, 'stage1'), join(path, 'stage2')];
  const found = folders.filter((folder) => existsSync(join(folder, 'metrics.jsonl')));
  if (found.length === 0)
    throw new DataError(`${path} holds no metrics.jsonl; name the folder of a training run`);
  return found;
}

/** Draws the curves of one or more runs, side by side in each panel, as a PNG file. */
export async function drawRunCurves(runs: readonly string[], out: string): Promise<void> {
  const logs = await Promise.all(
    runs.map(async (run) => ({ name: nameOf(run), rows: await readMetrics(join(run, 'metrics.jsonl')) })),
  );
  const panels = PANELS.map(({ metric, ...options }) => ({
    ...options,
    xLabel: 'step',
    series: logs
      .map(({ name, rows }) => ({
        name,
        points: rows.flatMap((row): [number, number][] => {
          const value = row[metric];
          return value === undefined || value === null ? [] : [[row.step, value]];
        }),
      }))
      .filter(({ points }) => points.length > 0),
  })).filter(({ series }) => series.length > 0);
  await writeFileAtomic(out, await curvesSheet(panels));
}
