import type { EChartsCoreOption } from 'echarts/core';
import { SHEET_FONT } from '../data/sheets.js';

/** The colours of a chart. On a page they are CSS variables, which change between light and dark. */
export interface ChartTheme {
  background: string;
  ink: string;
  label: string;
  axis: string;
  grid: string;
  font: string;
  /** The colours of the series, in order. */
  palette: readonly string[];
}

/** Black on white, for pictures. */
export const PAPER: ChartTheme = {
  background: '#ffffff',
  ink: '#24292f',
  label: '#57606a',
  axis: '#8c959f',
  grid: '#e6e8eb',
  font: SHEET_FONT,
  // Okabe and Ito's colours, which colour-blind readers can distinguish.
  palette: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#5a5a5a'],
};

/** The variables of the style sheet (page-style.ts). */
export const PAGE: ChartTheme = {
  background: 'transparent',
  ink: 'var(--ink)',
  label: 'var(--muted)',
  axis: 'var(--line)',
  grid: 'var(--grid)',
  font: 'inherit',
  palette: PAPER.palette.map((_, i) => `var(--series-${i})`),
};

export interface ChartSize {
  width: number;
  height: number;
}

/** Approximate width of a text in DejaVu Sans, a wide font. */
export const textWidth = (text: string, fontSize: number) => 0.62 * fontSize * text.length;

/** The label of a tick; rounded, since a logarithmic axis computes 0.0000999… for 0.0001. */
export function tick(value: number): string {
  const exact = Number(value.toPrecision(10));
  return exact !== 0 && Math.abs(exact) < 1e-4
    ? exact.toExponential()
    : exact.toLocaleString('en', { maximumFractionDigits: 10 });
}

/** Options of all axes. */
export function axis(name: string, theme: ChartTheme) {
  return {
    name,
    nameLocation: 'middle',
    splitLine: { show: true, lineStyle: { color: theme.grid } },
    axisLine: { show: true, onZero: false, lineStyle: { color: theme.axis } },
    axisTick: { lineStyle: { color: theme.axis } },
    axisLabel: { color: theme.label, hideOverlap: true, margin: 11, formatter: tick },
    nameTextStyle: { color: theme.ink },
  };
}

/** Draws a chart of lines or bars as SVG text. */
export async function chartSvg(
  option: EChartsCoreOption,
  { width, height }: ChartSize,
  theme: ChartTheme,
): Promise<string> {
  const [echarts, { BarChart, LineChart }, components, { SVGRenderer }] = await Promise.all([
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
  echarts.use([BarChart, LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);
  const drawing = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  try {
    drawing.setOption({
      animation: false,
      backgroundColor: theme.background,
      color: [...theme.palette],
      textStyle: { fontFamily: theme.font },
      ...option,
    });
    return drawing.renderToSVGString();
  } finally {
    drawing.dispose();
  }
}
