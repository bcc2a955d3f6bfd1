import { writeFileAtomic } from '../files/atomic.js';
import { refuseForeign } from '../files/mark.js';
import { readMetrics } from '../run/metrics.js';
import { runFiles } from '../run/record.js';
import { curvesSheet } from './curves.js';
import { PANELS, pointsOf } from './panels.js';
import { nothingRecorded, runName } from './run-folders.js';

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
