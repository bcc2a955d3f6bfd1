import sharp from 'sharp';
import { toPng } from '../data/images/png.js';
import { renderSvg } from '../data/sheets.js';
import { axis, type ChartSize, type ChartTheme, chartSvg, PAPER, textWidth } from './chart.js';

/** A named line through (step, value) points. */
export interface Series {
  name: string;
  points: readonly (readonly [step: number, value: number])[];
  /** Index into the palette; by default the next colour. */
  colour?: number;
}

export interface CurvesOptions {
  /** Drawn above the curves, with a legend below it; without a title there is no legend. */
  title?: string;
  xLabel: string;
  yLabel: string;
  logX?: boolean;
  logY?: boolean;
  size?: ChartSize;
  theme?: ChartTheme;
}

const SIZE = { width: 640, height: 400 };
/** Twice the resolution of the SVG, for sharp lines and text. */
const DENSITY = 144;

/** Height of a row of the legend. */
const ROW = 20;

/** The names of a legend, divided into rows that fit the width. */
function legendRows(names: string[], width: number): string[][] {
  const rows: string[][] = [];
  let free = 0;
  for (const name of names) {
    const needed = textWidth(name, 12) + 50;
    if (free < needed) {
      rows.push([]);
      free = width - 40;
    }
    rows.at(-1)!.push(name);
    free -= needed;
  }
  return rows;
}

/** Whether the positive ones of some values span more than a power of ten: a logarithmic axis shows only whole ones. */
function spansDecades(values: readonly number[]): boolean {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  return Math.max(...positive) > 10 * Math.min(...positive);
}

/**
 * Line curves as an SVG. Within one power of ten, a logarithmic axis is a linear one. A value that is not finite, or not positive on a logarithmic axis, leaves a gap.
 */
export async function curvesSvg(series: readonly Series[], options: CurvesOptions): Promise<string> {
  const { title, xLabel, yLabel, logX = false, logY = false, size = SIZE, theme = PAPER } = options;
  const points = series.flatMap((one) => one.points);
  const scale = (log: boolean, coordinate: 0 | 1) => {
    const logarithmic = log && spansDecades(points.map((point) => point[coordinate]));
    return { type: logarithmic ? 'log' : 'value', scale: true };
  };
  const rows =
    title === undefined
      ? []
      : legendRows(
          series.map((one) => one.name),
          size.width,
        );
  const colours = series.map(({ colour = 0 }, i) =>
    series[i].colour === undefined ? undefined : theme.palette[colour % theme.palette.length],
  );
  return chartSvg(
    {
      title: title && { text: title, left: 'center', top: 12, textStyle: { fontSize: 16, color: theme.ink } },
      legend: rows.map((data, i) => ({
        data,
        top: 40 + ROW * i,
        icon: 'roundRect',
        itemHeight: 3,
        itemWidth: 18,
        itemGap: 18,
      })),
      grid: title
        ? { left: 76, right: 28, top: 52 + ROW * rows.length, bottom: 56 }
        : { left: 66, right: 16, top: 14, bottom: 44 },
      xAxis: { ...axis(xLabel, theme), ...scale(logX, 0), nameGap: title ? 30 : 26 },
      yAxis: { ...axis(yLabel, theme), ...scale(logY, 1), nameGap: title ? 54 : 48 },
      series: series.map(({ name, points }, i) => ({
        type: 'line',
        name,
        data: points.map(([x, y]) => [x, Number.isFinite(y) ? y : null]),
        sampling: 'lttb',
        showSymbol: points.length === 1,
        lineStyle: { width: 1.8, color: colours[i] },
        itemStyle: { color: colours[i] },
      })),
    },
    size,
    theme,
  );
}

/** The curves of `curvesSvg` as PNG bytes, at twice the size. */
export async function curvesPicture(series: readonly Series[], options: CurvesOptions): Promise<Buffer> {
  return renderSvg(await curvesSvg(series, options), DENSITY);
}

/** Several panels in one picture, two in a row, as PNG bytes. */
export async function curvesSheet(
  panels: readonly (CurvesOptions & { series: readonly Series[] })[],
): Promise<Buffer> {
  const pictures = await Promise.all(panels.map(({ series, ...options }) => curvesPicture(series, options)));
  const [width, height] = [2 * SIZE.width, 2 * SIZE.height];
  const sheet = sharp({
    create: {
      width: width * Math.min(2, panels.length),
      height: height * Math.ceil(panels.length / 2),
      channels: 3,
      background: PAPER.background,
    },
  });
  const places = pictures.map((input, i) => ({
    input,
    left: (i % 2) * width,
    top: Math.floor(i / 2) * height,
  }));
  return toPng(sheet.composite(places));
}
