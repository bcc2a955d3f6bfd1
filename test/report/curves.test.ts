import sharp from 'sharp';
import { expect, test } from 'vitest';
import { curvesPicture, curvesSheet, curvesSvg } from '../../src/report/curves.js';

const options = { title: 'Loss & more', xLabel: 'step', yLabel: 'nats' };
const line = (name: string, values: number[]) => ({
  name,
  points: values.map((value, i) => [i * 100, value] as [number, number]),
});

const texts = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map((match) => match[1]);
/** The drawn lines' paths: unfilled, in a palette colour. */
const lines = (svg: string) =>
  [...svg.matchAll(/<path d="([^"]*)" fill="none"[^>]*stroke="#(?:0072b2|d55e00)"/g)].map(
    (match) => match[1],
  );

test('curves have title, axis names and legend', async () => {
  const svg = await curvesSvg([line('train', [3, 2, 1]), line('held-out', [4, 3, 2])], options);
  expect(texts(svg)).toEqual(
    expect.arrayContaining(['Loss &amp; more', 'step', 'nats', 'train', 'held-out']),
  );
  expect(svg).not.toMatch(/font-family:(?!DejaVu Sans)/);
});

test('values that cannot be drawn leave a gap', async () => {
  const parts = async (values: number[], log = {}) => {
    const svg = await curvesSvg([line('a', values)], { ...options, ...log });
    expect(svg).not.toMatch(/NaN|Infinity/);
    return lines(svg).join('').match(/M/g)?.length;
  };
  const whole = (await parts([5, 4, 3, 2, 1]))!;
  expect(await parts([5, 4, Number.NaN, 2, 1])).toBe(whole + 1);
  expect(await parts([5, 4, Number.POSITIVE_INFINITY, 2, 1])).toBe(whole + 1);
  const svg = await curvesSvg([line('a', [5, 4, Number.POSITIVE_INFINITY, 2, 1])], options);
  expect(texts(svg)).toContain('5'); // the axis ends at the largest finite value
  expect(await parts([5, 4, 0, 2, 1])).toBe(whole);
  expect(await parts([50, 4, 0, 2, 1], { logY: true })).toBe(whole + 1);
  expect(await parts([5, 4, 3, 2, 1], { logX: true })).toBe(whole);
});

test('ticks of a logarithmic axis are round numbers', async () => {
  const svg = await curvesSvg([line('a', [1e-5, 3e-4, 2])], { ...options, logY: true });
  expect(texts(svg)).toEqual(expect.arrayContaining(['1e-5', '0.0001', '0.001', '0.01', '0.1', '1', '10']));
});

test('values within a power of ten fill a logarithmic axis, as they would a linear one', async () => {
  const values = [line('a', [6.8, 5, 4.5])];
  const [logarithmic, linear] = [{ ...options, logY: true }, options].map((one) => curvesSvg(values, one));
  expect(texts(await logarithmic)).toEqual(texts(await linear));
});

test('a legend with several rows stays above the curves', async () => {
  const names = Array.from({ length: 9 }, (_, i) => `a rather long name ${i}`);
  const svg = await curvesSvg(
    names.map((name) => line(name, [1, 2])),
    options,
  );
  const y = (text: string) =>
    Number(svg.match(new RegExp(`<text[^>]*translate\\([\\d.]+ ([\\d.]+)\\)[^>]*>${text}</text>`))?.[1]);
  const legend = names.map(y);
  expect(new Set(legend).size).toBeGreaterThan(1);
  expect(Math.max(...legend)).toBeLessThan(y('2') - 10);
});

test('a picture is twice the size of its SVG and not blank', async () => {
  const picture = sharp(await curvesPicture([line('a', [1, 2])], options));
  const { width, height, format } = await picture.metadata();
  expect({ width, height, format }).toEqual({ width: 1280, height: 800, format: 'png' });
  expect((await picture.stats()).channels[0].min).toBeLessThan(100);
});

test('a sheet puts two panels in a row', async () => {
  const panel = (title: string) => ({ ...options, title, series: [line('a', [1, 2])] });
  const size = async (count: number) => {
    const sheet = await curvesSheet(Array.from({ length: count }, (_, i) => panel(`${i}`)));
    const { width, height } = await sharp(sheet).metadata();
    return [width, height];
  };
  expect(await size(1)).toEqual([1280, 800]);
  expect(await size(3)).toEqual([2560, 1600]);
});
