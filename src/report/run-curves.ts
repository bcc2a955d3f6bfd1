import { writeFileAtomic } from '../files/atomic.js';
import { refuseForeign } from '../files/mark.js';
import { type MetricsRow, readMetrics } from '../run/metrics.js';
import { runFiles } from '../run/record.js';
import { curvesSheet } from './curves.js';
import { nothingRecorded, runName } from './run-folders.js';

/** One chart of a metric over the steps. */
export interface Panel {
  metric: string;
  title: string;
  yLabel: string;
  logY?: boolean;
}

/** The main metrics of a run, most important first. */
export const PANELS: readonly Panel[] = [
  { metric: 'loss', title: 'Training loss', yLabel: 'loss', logY: true },
  { metric: 'psnr', title: 'Training PSNR', yLabel: 'dB' },
  { metric: 'validation_psnr', title: 'Validation PSNR', yLabel: 'dB' },
  { metric: 'preview_psnr', title: 'Preview PSNR', yLabel: 'dB' },
  { metric: 'codebook_usage', title: 'Codebook usage', yLabel: 'fraction of entries' },
  { metric: 'accuracy', title: 'Next-token accuracy', yLabel: 'fraction of tokens' },
  { metric: 'lr', title: 'Learning rate', yLabel: 'learning rate' },
];

/** The (step, value) points of a metric; NaN where the value was not finite. */
export function pointsOf(rows: readonly MetricsRow[], metric: string): [step: number, value: number][] {
  return rows.flatMap((row): [number, number][] =>
    metric in row ? [[row.step, row[metric] ?? Number.NaN]] : [],
  );
}

/**
 * Draws the curves of one or more runs, together in each panel, as a PNG file.
 * @throws DataError where no run has a line in its metrics log yet, or a log cannot be read; OutputError
 */
export async function drawRunCurves(runs: readonly string[], out: string): Promise<void> {
  await refuseForeign(out);
  const logs = await Promise.all(
    runs.map(async (run) => ({ name: runName(run), rows: await readMetrics(runFiles(run).metrics) })),
  );
  const panels = PANELS.map(({ metric, ...options }) => ({
    ...options,
    xLabel: 'step',
    series: logs
      .map(({ name, rows }) => ({ name, points: pointsOf(rows, metric) }))
      .filter(({ points }) => points.length > 0),
  })).filter(({ series }) => series.length > 0);
  if (panels.length === 0) throw nothingRecorded(runs);
  await writeFileAtomic(out, await curvesSheet(panels));
}
