import type { MetricsRow } from '../run/metrics.js';

/** One chart of a metric over the steps. */
export interface Panel {
  metric: string;
  title: string;
  yLabel: string;
  logY?: boolean;
}

/** The metrics that say how a run goes, in the order of interest. */
export const PANELS: readonly Panel[] = [
  { metric: 'loss', title: 'Training loss', yLabel: 'loss', logY: true },
  { metric: 'psnr', title: 'PSNR of training batches', yLabel: 'dB' },
  { metric: 'validation_psnr', title: 'PSNR of held-out images', yLabel: 'dB' },
  { metric: 'preview_psnr', title: 'PSNR of preview images', yLabel: 'dB' },
  { metric: 'codebook_usage', title: 'Codebook entries in use', yLabel: 'share' },
  { metric: 'accuracy', title: 'Predicted right', yLabel: 'share' },
  { metric: 'lr', title: 'Learning rate', yLabel: 'lr' },
];

/** The (step, value) points of a metric; a value that was not finite is NaN. */
export function pointsOf(rows: readonly MetricsRow[], metric: string): [step: number, value: number][] {
  return rows.flatMap((row): [number, number][] =>
    metric in row ? [[row.step, row[metric] ?? Number.NaN]] : [],
  );
}
