import { createRequire } from 'node:module';
import sharp from 'sharp';
import { escapeXml } from '../text.js';
import { toPng } from './images/png.js';
import { splitImages } from './images/split.js';

/** Pictures of one size: uint8 (size, size, 3) each, or all of them in one array (N, size, size, 3). */
export type Pictures = readonly Uint8Array[] | Uint8Array;

export const SHEET_FONT = 'DejaVu Sans';

const PAPER = 250;
const INK = '#24292f';
const FONT_SIZE = 12;
const LINE = 18;
const MARGIN = 16;
const GAP = 10;
const PAIR_GAP = 2;
/** Small pictures are enlarged by an integer factor up to this side. */
const SHOWN_SIDE = 128;
const WIDEST_ROW_LABEL = 180;

let loading: Promise<void> | undefined;

function fontsLoaded(): Promise<void> {
  loading ??= loadFonts();
  return loading;
}

/**
 * Makes the package's DejaVu Sans, regular and bold, available in addition to the system's fonts: fontconfig keeps a font that
 * was given as a file for the whole process, and librsvg finds it there. The variable FONTCONFIG_FILE would do the same, but
 * libvips' threads read the environment while images are decoded, and a process crashes if it changes meanwhile.
 */
async function loadFonts(): Promise<void> {
  const { resolve } = createRequire(import.meta.url);
  const font = `${SHEET_FONT} ${FONT_SIZE}`;
  for (const face of ['DejaVuSans', 'DejaVuSans-Bold']) {
    const fontfile = resolve(`dejavu-fonts-ttf/ttf/${face}.ttf`);
    await sharp({ text: { text: 'any text', font, fontfile } }).metadata();
  }
}

/**
 * Draws an SVG. Text in `SHEET_FONT` looks the same on every machine, also without fonts installed.
 * @param density pixels per 72 SVG units: 144 doubles the size
 * @returns PNG bytes
 */
export async function renderSvg(svg: string, density = 72): Promise<Buffer> {
  await fontsLoaded();
  return sharp(Buffer.from(svg), { density }).png().toBuffer();
}

/** Width of a text in pixels at `FONT_SIZE`. */
async function inkWidth(text: string): Promise<number> {
  if (text.trim() === '') return 0;
  const font = `${SHEET_FONT} ${FONT_SIZE}`;
  return (await sharp({ text: { text: escapeXml(text), font, dpi: 72 } }).metadata()).width;
}

/** The text, shortened with an ellipsis if it does not fit. */
async function ellipsised(text: string, width: number): Promise<string> {
  if ((await inkWidth(text)) <= width) return text;
  const signs = [...text];
  const cut = (length: number) => `${signs.slice(0, length).join('').trimEnd()}…`;
  let [fits, tooLong] = [0, signs.length];
  while (tooLong - fits > 1) {
    const middle = (fits + tooLong) >> 1;
    if ((await inkWidth(cut(middle))) <= width) fits = middle;
    else tooLong = middle;
  }
  return cut(fits);
}

interface Placed {
  pixels: Uint8Array;
  x: number;
  y: number;
}

interface Text {
  text: string;
  x: number;
  /** Baseline. */
  y: number;
  width: number;
  anchor: 'middle' | 'end';
}

/** Draws pictures, enlarged by `scale`, and texts on a sheet; returns PNG bytes. */
async function drawSheet(sheet: {
  width: number;
  height: number;
  size: number;
  scale: number;
  pictures: Placed[];
  texts: Text[];
}): Promise<Buffer> {
  const { width, height, size, scale } = sheet;
  const canvas = new Uint8Array(width * height * 3).fill(PAPER);
  const line = new Uint8Array(size * scale * 3);
  for (const { pixels, x, y } of sheet.pictures) {
    for (let row = 0; row < size * scale; row++) {
      const start = Math.floor(row / scale) * size;
      for (let i = 0; i < line.length; i++) {
        line[i] = pixels[3 * (start + Math.floor(i / 3 / scale)) + (i % 3)];
      }
      canvas.set(line, 3 * ((y + row) * width + x));
    }
  }
  await fontsLoaded();
  const shown = new Map<string, string>();
  let svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"
    font-family="${SHEET_FONT}" font-size="${FONT_SIZE}" fill="${INK}">`;
  for (const { text, x, y, width, anchor } of sheet.texts) {
    const key = `${width} ${text}`;
    if (!shown.has(key)) shown.set(key, await ellipsised(text, width));
    svg += `<text x="${x}" y="${y}" text-anchor="${anchor}">${escapeXml(shown.get(key)!)}</text>`;
  }
  const texts = await renderSvg(`${svg}</svg>`);
  return toPng(sharp(canvas, { raw: { width, height, channels: 3 } }).composite([{ input: texts }]));
}

const asList = (pictures: Pictures, size: number): readonly Uint8Array[] =>
  pictures instanceof Uint8Array ? splitImages(pictures, size) : pictures;

const defaultScale = (size: number) => Math.max(1, Math.floor(SHOWN_SIDE / size));

/**
 * Draws a grid of pictures, row by row, with a label below each picture or beside each row. Labels that do not fit are
 * shortened with an ellipsis.
 * @param options.size side of a picture; `scale` is an integer factor, by default such that the side is up to 128 pixels
 * @param options.labels one for each picture
 * @param options.rowLabels one for each row
 * @returns PNG bytes
 */
export async function labelledGrid(
  images: Pictures,
  options: { size: number; columns: number; labels?: string[]; rowLabels?: string[]; scale?: number },
): Promise<Buffer> {
  const { size, columns, labels = [], rowLabels = [], scale = defaultScale(size) } = options;
  const side = size * scale;
  const list = asList(images, size);
  const rows = Math.ceil(list.length / columns);
  await fontsLoaded();
  const widths = await Promise.all(rowLabels.map(inkWidth));
  const left = MARGIN + (rowLabels.length > 0 ? Math.min(WIDEST_ROW_LABEL, Math.max(...widths)) + GAP : 0);
  const down = side + (labels.length > 0 ? LINE : 0) + GAP;
  const at = (i: number) => ({
    x: left + (i % columns) * (side + GAP),
    y: MARGIN + Math.floor(i / columns) * down,
  });
  return drawSheet({
    size,
    scale,
    width: left + Math.min(columns, list.length) * (side + GAP) - GAP + MARGIN,
    height: MARGIN + rows * down - GAP + MARGIN,
    pictures: list.map((pixels, i) => ({ pixels, ...at(i) })),
    texts: [
      ...labels.map((text, i): Text => {
        const { x, y } = at(i);
        return { text, x: x + side / 2, y: y + side + LINE - 4, width: side, anchor: 'middle' };
      }),
      ...rowLabels.map((text, row): Text => {
        const y = at(row * columns).y + side / 2 + FONT_SIZE / 3;
        return { text, x: left - GAP, y, width: WIDEST_ROW_LABEL, anchor: 'end' };
      }),
    ],
  });
}

/**
 * Draws pairs of original and reconstruction side by side under a header, `columns` pairs per row.
 * @param options.labels one for each pair, shown below it
 * @returns PNG bytes
 */
export async function pairSheet(
  originals: Pictures,
  reconstructions: Pictures,
  options: { size: number; columns?: number; labels?: string[]; scale?: number },
): Promise<Buffer> {
  const { size, columns = 4, labels = [], scale = defaultScale(size) } = options;
  const side = size * scale;
  const [left, right] = [asList(originals, size), asList(reconstructions, size)];
  const used = Math.min(columns, left.length);
  const across = 2 * side + PAIR_GAP + 2 * GAP;
  const down = side + (labels.length > 0 ? LINE : 0) + GAP;
  const top = MARGIN + LINE;
  const at = (i: number) => ({ x: MARGIN + (i % columns) * across, y: top + Math.floor(i / columns) * down });
  const header = (text: string, x: number): Text => ({ text, x, y: top - 6, width: side, anchor: 'middle' });
  return drawSheet({
    size,
    scale,
    width: MARGIN + used * across - 2 * GAP + MARGIN,
    height: top + Math.ceil(left.length / columns) * down - GAP + MARGIN,
    pictures: left.flatMap((pixels, i) => {
      const { x, y } = at(i);
      return [
        { pixels, x, y },
        { pixels: right[i], x: x + side + PAIR_GAP, y },
      ];
    }),
    texts: [
      ...Array.from({ length: used }, (_, i) => [
        header('original', at(i).x + side / 2),
        header('reconstruction', at(i).x + side + PAIR_GAP + side / 2),
      ]).flat(),
      ...labels.map((text, i): Text => {
        const { x, y } = at(i);
        const width = 2 * side + PAIR_GAP;
        return { text, x: x + width / 2, y: y + side + LINE - 4, width, anchor: 'middle' };
      }),
    ],
  });
}
