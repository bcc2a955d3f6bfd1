import type { EChartsCoreOption } from 'echarts/core';
import sharp from 'sharp';
import { renderSvg, SHEET_FONT } from '../data/sheets.js';

/** A named line through (step, value) points. */
export interface Series {
  name: string;
  points: readonly (readonly [step: number, value: number])[];
}

export interface CurvesOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  logX?: boolean;
  logY?: boolean;
}

const WIDTH = 640;
const HEIGHT = 400;
/** Twice the SVG's size, for sharp lines and text. */
const DENSITY = 144;
/** Okabe and Ito's colours, told apart by colour-blind readers. */
const PALETTE = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#5a5a5a'];

/** Height of a row of the legend. */
const ROW = 20;

/** About the width of a text in DejaVu Sans. */
const textWidth = (text: string, fontSize: number) => 0.62 * fontSize * text.length;

/** Names in as few rows as hold them. */
function legendRows(names: string[]): string[][] {
  const rows: string[][] = [];
  let free = 0;
  for (const name of names) {
    const needed = textWidth(name, 12) + 50;
    if (free < needed) {
      rows.push([]);
      free = WIDTH - 40;
    }
    rows.at(-1)!.push(name);
    free -= needed;
  }
  return rows;
}

/** A tick's number; a logarithmic axis computes 0.0000999… for 0.0001. */
function tick(value: number): string {
  const exact = Number(value.toPrecision(10));
  return exact !== 0 && Math.abs(exact) < 1e-4
    ? exact.toExponential()
    : exact.toLocaleString('en', { maximumFractionDigits: 10 });
}

/**
 * Line curves as an SVG of 640 × 400. A value that is not finite, or not positive on a logarithmic axis,
 * leaves a gap in its line.
 */
export async function curvesSvg(series: readonly Series[], options: CurvesOptions): Promise<string> {
  const [echarts, { LineChart }, components, { SVGRenderer }] = await Promise.all([
    import('echarts/core'),
    import('echarts/charts'),
    import('echarts/components'),
    import('echarts/renderers'),
  ]);
  const { GridComponent, LegendComponent, TitleComponent } = components;
  // Without a canvas echarts guesses text widths for a narrower font: legend entries would touch.
  echarts.setPlatformAPI({
    measureText: (text, font) => ({ width: textWidth(text, Number(font?.match(/([\d.]+)px/)?.[1] ?? 12)) }),
  });
  echarts.use([LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

  const { title, xLabel, yLabel, logX = false, logY = false } = options;
  const axis = (name: string, log: boolean) => ({
    type: log ? 'log' : 'value',
    name,
    nameLocation: 'middle',
    scale: true,
    splitLine: { show: true, lineStyle: { color: '#e6e8eb' } },
    axisLine: { show: true, onZero: false, lineStyle: { color: '#8c959f' } },
    axisLabel: { color: '#57606a', hideOverlap: true, margin: 11, formatter: tick },
    nameTextStyle: { color: '#24292f' },
  });
  const rows = legendRows(series.map((one) => one.name));
  const chart: EChartsCoreOption = {
    animation: false,
    backgroundColor: '#ffffff',
    color: PALETTE,
    textStyle: { fontFamily: SHEET_FONT },
    title: { text: title, left: 'center', top: 12, textStyle: { fontSize: 16, color: '#24292f' } },
    legend: rows.map((data, i) => ({
      data,
      top: 40 + ROW * i,
      icon: 'roundRect',
      itemHeight: 3,
      itemWidth: 18,
      itemGap: 18,
    })),
    grid: { left: 76, right: 28, top: 52 + ROW * rows.length, bottom: 56 },
    xAxis: { ...axis(xLabel, logX), nameGap: 30 },
    yAxis: { ...axis(yLabel, logY), nameGap: 54 },
    series: series.map(({ name, points }) => ({
      type: 'line',
      name,
      data: points.map(([x, y]) => [x, Number.isFinite(y) ? y : null]),
      showSymbol: points.length === 1,
      lineStyle: { width: 1.8 },
    })),
  };
  const drawing = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  try {
    drawing.setOption(chart);
    return drawing.renderToSVGString();
  } finally {
    drawing.dispose();
  }
}

/** The curves of `curvesSvg` as PNG bytes, 1280 × 800. */
export async function curvesPicture(series: readonly Series[], options: CurvesOptions): Promise<Buffer> {
  return renderSvg(await curvesSvg(series, options), DENSITY);
}

/** Several panels in one picture, two a row, as PNG bytes. */
export async function curvesSheet(
  panels: readonly (CurvesOptions & { series: readonly Series[] })[],
): Promise<Buffer> {
  const pictures = await Promise.all(panels.map(({ series, ...options }) => curvesPicture(series, options)));
  const [width, height] = [2 * WIDTH, 2 * HEIGHT];
  return sharp({
    create: {
      width: width * Math.min(2, panels.length),
      height: height * Math.ceil(panels.length / 2),
      channels: 3,
      background: '#ffffff',
    },
  })
    .composite(
      pictures.map((input, i) => ({ input, left: (i % 2) * width, top: Math.floor(i / 2) * height })),
    )
    .png()
    .toBuffer();
}
