import type { MetricsRow } from '../run/metrics.js';

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
