import { writeFileAtomic } from '../formats/atomic.js';
import { readMetrics } from '../train/metrics-log.js';
import { runFiles } from '../train/run-folder.js';
import { curvesSheet } from './curves.js';
import { PANELS, pointsOf } from './panels.js';
import { runName } from './run-folders.js';

/** Draws the curves of one or more runs, side by side in each panel, as a PNG file. */
export async function drawRunCurves(runs: readonly string[], out: string): Promise<void> {
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
  await writeFileAtomic(out, await curvesSheet(panels));
}
