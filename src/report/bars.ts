import { countsHistogram } from '../run/events.js';
import { axis, type ChartSize, type ChartTheme, chartSvg } from './chart.js';

/** How often one run used each code. */
export interface CodeCounts {
  counts: readonly number[];
  /** Index into the palette. */
  colour: number;
  name: string;
}

/** Most runs for which there is room to write numbers above the bars. */
const LABELLED = 1;

/** The label of `countsHistogram`'s bucket i: 0, 1, 2–3, 4–7 and so on. */
function bucketName(i: number): string {
  return i < 2 ? String(i) : `${2 ** (i - 1)}–${2 ** i - 1}`;
}

/** A histogram of how often codes were used, with the runs next to each other. */
export async function codeCountsSvg(
  runs: readonly CodeCounts[],
  size: ChartSize,
  theme: ChartTheme,
): Promise<string> {
  const buckets = runs.map(({ counts }) => countsHistogram(counts).counts);
  const length = Math.max(...buckets.map((one) => one.length));
  const { formatter: _, ...axisLabel } = axis('', theme).axisLabel;
  return chartSvg(
    {
      grid: { left: 66, right: 16, top: 14, bottom: 44 },
      xAxis: {
        ...axis('times used', theme),
        type: 'category',
        data: Array.from({ length }, (_, i) => bucketName(i)),
        splitLine: { show: false },
        axisLabel,
        nameGap: 26,
      },
      yAxis: { ...axis('codebook entries', theme), type: 'value', nameGap: 48 },
      series: runs.map(({ name, colour }, i) => ({
        type: 'bar',
        name,
        data: buckets[i],
        label: { show: runs.length <= LABELLED, position: 'top', color: theme.label, fontSize: 11 },
        itemStyle: { color: theme.palette[colour % theme.palette.length] },
      })),
    },
    size,
    theme,
  );
}
