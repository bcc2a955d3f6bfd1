import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import type { MetricsRow } from '../run/metrics.js';
import { codeCountsSvg } from './bars.js';
import { PAGE, tick } from './chart.js';
import { curvesSvg } from './curves.js';
import { Html, html, table } from './html.js';
import { type PagePicture, spread } from './pictures.js';
import { type Evaluation, type RunContents, standing } from './read-run.js';
import { PANELS, type Panel, pointsOf } from './run-curves.js';

/** A section of a report; its title also stands in the table of contents. */
export interface Section {
  id: string;
  title: string;
  body: Html;
}

/** A run with the pictures that the page shows. */
export interface PageRun extends RunContents {
  /** By their name in the run, such as `samples`. */
  shown: Map<string, PagePicture[]>;
}

const CHART = { width: 420, height: 270 };
/** Most rows of the table below a chart. */
const TABLE_STEPS = 25;
/** Keys of an evaluation's file that are not results. */
const NO_RESULT = new Set(['time', 'command', 'git_revision', 'software']);
/** Columns of the metrics log that are not metrics. */
const NOT_SHOWN = new Set(['step', 'time', 'phase']);

/** A number in five significant digits; a dash for a missing value. */
function digits(value: unknown): string {
  if (typeof value !== 'number') return value === null || value === undefined ? '–' : String(value);
  if (!Number.isFinite(value)) return 'not finite';
  return Number.isInteger(value) ? value.toLocaleString('en') : tick(Number(value.toPrecision(5)));
}

const chip = (colour: number) =>
  html`<span class="chip" style="background:${PAGE.palette[colour % PAGE.palette.length]}"></span>`;

/** The colours of the `shown` runs; empty for a single run. */
const legend = (runs: readonly PageRun[], shown: (run: PageRun) => boolean = () => true) =>
  runs.length < 2
    ? html``
    : html`<ul class="legend">${runs.map((run, i) => (shown(run) ? html`<li>${chip(i)}${run.name}</li>` : ''))}</ul>`;

/** The last finite value of a metric. */
function last(rows: readonly MetricsRow[], metric: string): number | undefined {
  return pointsOf(rows, metric).findLast(([, value]) => Number.isFinite(value))?.[1];
}

/** The time that a log spans, without the pauses between two starts. */
function timeTaken(run: RunContents): string {
  const starts = (run.info?.starts ?? []).map(({ time }) => Date.parse(time) / 1000);
  let seconds = 0;
  run.metrics.forEach(({ time }, i) => {
    const begun = Math.max(
      run.metrics[i - 1]?.time ?? Number.NEGATIVE_INFINITY,
      ...starts.filter((start) => start <= time),
    );
    if (Number.isFinite(begun)) seconds += time - begun;
  });
  if (seconds === 0) return '–';
  return seconds < 90
    ? `${Math.round(seconds)} s`
    : seconds < 5400
      ? `${Math.round(seconds / 60)} min`
      : `${(seconds / 3600).toFixed(1)} h`;
}

export function overview(runs: readonly PageRun[]): Section {
  const metrics = PANELS.filter(
    ({ metric }) => metric !== 'lr' && runs.some((run) => last(run.metrics, metric) !== undefined),
  );
  const rows: [string, (run: PageRun) => string | undefined][] = [
    ['Training', (run) => run.info?.training?.label],
    ['Steps', standing],
    ['Time', timeTaken],
    ...metrics.map(({ metric, title }): [string, (run: PageRun) => string] => [
      title,
      (run) => digits(last(run.metrics, metric)),
    ]),
    ['Folder', (run) => run.folder],
  ];
  return {
    id: 'runs',
    title: 'Overview',
    body: table({
      caption: 'Progress of each run, and the last value of its metrics',
      head: ['', ...runs.map(({ name }, i) => html`${runs.length > 1 ? chip(i) : ''}${name}`)],
      rows: rows.map(([name, of]) => [name, ...runs.map((run) => of(run) ?? '–')]),
    }),
  };
}

/** An SVG with a description for screen readers. */
function described(svg: string, label: string): Html {
  const { text } = html`<svg role="img" aria-label="${label}" `;
  return new Html(svg.replace(/^<svg /, text));
}

async function curveFigure(panel: Panel, runs: readonly PageRun[]): Promise<Html | undefined> {
  const series = runs
    .map(({ name, metrics }, colour) => ({ name, colour, points: pointsOf(metrics, panel.metric) }))
    .filter(({ points }) => points.some(([, value]) => Number.isFinite(value)));
  if (series.length === 0) return undefined;
  const logY =
    panel.logY === true && series.every(({ points }) => points.every(([, value]) => !(value <= 0)));
  const svg = await curvesSvg(series, {
    xLabel: 'step',
    yLabel: panel.yLabel,
    logY,
    size: CHART,
    theme: PAGE,
  });
  const texts = series.map(({ name, points }) => {
    const known = points.filter(([, value]) => Number.isFinite(value));
    const at = ([step, value]: readonly [number, number]) => `${digits(value)} at step ${digits(step)}`;
    return `${name}: from ${at(known[0])} to ${at(known.at(-1)!)}`;
  });
  const steps = [...new Set(series.flatMap(({ points }) => points.map(([step]) => step)))].sort(
    (a, b) => a - b,
  );
  const values = series.map(({ points }) => new Map(points));
  return html`<figure><figcaption><h3>${panel.title}</h3><code>${panel.metric}</code></figcaption>
${described(svg, `${panel.title}. ${texts.join('; ')}`)}
<details><summary>Values</summary>${table({
    caption: panel.title,
    head: ['Step', ...series.map(({ name }) => name)],
    rows: spread(steps, TABLE_STEPS).map((step) => [
      digits(step),
      ...values.map((of) => digits(of.get(step))),
    ]),
    numbers: true,
  })}</details></figure>`;
}

export async function curves(runs: readonly PageRun[]): Promise<Section> {
  const known = new Set(PANELS.map(({ metric }) => metric));
  const others = [...new Set(runs.flatMap(({ metrics }) => metrics.flatMap((row) => Object.keys(row))))]
    .filter((metric) => !known.has(metric) && !NOT_SHOWN.has(metric))
    .map((metric): Panel => ({ metric, title: metric.replaceAll('_', ' '), yLabel: '' }));
  const figures = async (panels: readonly Panel[]) =>
    (await Promise.all(panels.map((panel) => curveFigure(panel, runs)))).filter((one) => one !== undefined);
  const [first, more] = [await figures(PANELS), await figures(others)];
  const body =
    first.length + more.length === 0
      ? html`<p>No metrics have been recorded yet.</p>`
      : html`${legend(runs)}<div class="charts">${first}</div>
${more.length > 0 ? html`<details><summary>${more.length} more metrics</summary><div class="charts">${more}</div></details>` : ''}`;
  return { id: 'curves', title: 'Curves', body };
}

export async function codebook(runs: readonly PageRun[]): Promise<Section | undefined> {
  const counted = runs.flatMap(({ name, codeCounts }, colour) =>
    codeCounts ? [{ name, colour, ...codeCounts }] : [],
  );
  if (counted.length === 0) return undefined;
  const texts = counted.map(({ name, step, counts }) => {
    const used = counts.filter((count) => count > 0).length;
    return `${name}: ${digits(used)} of ${digits(counts.length)} codes used at step ${digits(step)}`;
  });
  const svg = await codeCountsSvg(counted, { width: 860, height: 300 }, PAGE);
  const narrow = await codeCountsSvg(counted, CHART, PAGE);
  return {
    id: 'codebook',
    title: 'Codebook usage',
    body: html`${legend(runs, ({ codeCounts }) => codeCounts !== undefined)}<figure><figcaption><h3>How often the preview images use each codebook entry</h3></figcaption>
<div class="wide">${described(svg, `Histogram. ${texts.join('; ')}`)}</div>
<div class="narrow">${described(narrow, `Histogram. ${texts.join('; ')}`)}</div>
<p>${texts.join('. ')}.</p></figure>`,
  };
}

/** Title and description of the pictures of a name. */
const PICTURES: Record<string, { title: string; alt: string }> = {
  reconstruction: {
    title: 'Reconstructions by step',
    alt: 'Pairs of an image and its reconstruction',
  },
  samples: { title: 'Samples by step', alt: 'Samples of the first classes, with the class names below' },
};

export function pictures(runs: readonly PageRun[]): Section[] {
  const names = [...new Set(runs.flatMap(({ shown }) => [...shown.keys()]))].sort();
  return names.map((name) => {
    const { title, alt } = PICTURES[name] ?? { title: `${name} by step`, alt: name };
    const own = runs.flatMap((run, i) => {
      const list = run.shown.get(name) ?? [];
      return list.length > 0 ? [{ run, i, list }] : [];
    });
    const steps = [...new Set(own.flatMap(({ list }) => list.map(({ step }) => step)))].sort((a, b) => a - b);
    const figure = ({ run, i, list }: (typeof own)[number]) =>
      html`<figure><figcaption><h3>${own.length > 1 ? chip(i) : ''}${run.name}</h3><span class="at"></span></figcaption>
${list.map(
  ({ step, source, width, height }, at) =>
    html`<div data-step="${step}"${at === list.length - 1 ? new Html(' class="shown"') : ''}><img alt="${`${alt}, ${run.name}, step ${step}`}" src="${source}" width="${width}" height="${height}"></div>`,
)}</figure>`;
    return {
      id: name,
      title,
      body: html`<section data-steps="${JSON.stringify(steps)}">
<div class="steps" hidden><label for="steps-${name}">step</label>
<input id="steps-${name}" type="range" min="0" max="${steps.length - 1}" value="${steps.length - 1}"><output></output></div>
<div class="pictures">${own.map(figure)}</div></section>`,
    };
  });
}

export function evaluations(runs: readonly PageRun[], named: readonly Evaluation[]): Section {
  const columns = [
    ...runs.flatMap((run) => run.evaluations.map((one) => ({ ...one, run: run.name }))),
    ...named.map((one) => ({ ...one, run: undefined })),
  ];
  const keys = [...new Set(columns.flatMap(({ values }) => Object.keys(values)))].filter(
    (key) => !NO_RESULT.has(key),
  );
  return {
    id: 'evaluations',
    title: 'Evaluations',
    body:
      columns.length === 0
        ? html`<p>None yet. Results of <code>alitok eval … -o RUN/evaluations/NAME.json</code> are shown here.</p>`
        : table({
            caption: 'Results of alitok eval',
            head: ['', ...columns.map(({ run, name }) => (run === undefined ? name : `${run}: ${name}`))],
            rows: keys.map((key) => [key, ...columns.map(({ values }) => digits(values[key]))]),
          }),
  };
}

/** A row of a table of configs: a key and its value in each config; undefined where a config does not have it. */
interface ConfigRow {
  key: string;
  values: (string | undefined)[];
}

/** All values of a config as text, by key path. */
function flatten(value: unknown, path: string, into: Map<string, string>): Map<string, string> {
  if (typeof value === 'object' && value !== null)
    for (const [key, part] of Object.entries(value))
      flatten(part, path === '' ? key : `${path}.${key}`, into);
  else into.set(path, String(value));
  return into;
}

/** The keys in which configs differ, in the order of the schema. */
function configDifferences(configs: readonly (Config | undefined)[]): ConfigRow[] {
  const flat = configs.map((config) => flatten(config ?? {}, '', new Map()));
  const keys = [...new Set(flat.flatMap((one) => [...one.keys()]))];
  return keys
    .map((key) => ({ key, values: flat.map((one) => one.get(key)) }))
    .filter(({ values }) => {
      const known = values.filter((_, i) => configs[i] !== undefined);
      return known.some((value) => value !== known[0]);
    });
}

export function configs(runs: readonly PageRun[]): Section {
  const head = ['Key', ...runs.map(({ name }) => name)];
  const rows = (differing: ReturnType<typeof configDifferences>) =>
    differing.map(({ key, values }) => [html`<code>${key}</code>`, ...values.map((value) => value ?? '–')]);
  const given = runs.map(({ config }) => config);
  const between = runs.length > 1 ? configDifferences(given) : [];
  const fromDefaults = configDifferences([loadConfig(undefined), ...given]);
  const defaults = table({
    caption: 'Values that differ from the defaults (the published values)',
    head: ['Key', 'Default', ...head.slice(1)],
    rows: rows(fromDefaults),
  });
  return {
    id: 'configs',
    title: runs.length > 1 ? 'Config differences' : 'Config',
    body:
      runs.length === 1
        ? defaults
        : html`${
            between.length > 0
              ? table({ caption: 'Values that differ between the runs', head, rows: rows(between) })
              : html`<p>The configs are the same.</p>`
          }<details><summary>Differences from the defaults</summary>${defaults}</details>`,
  };
}

export function versions(runs: readonly PageRun[]): Section {
  const starts = runs.flatMap(({ name, info }) =>
    (info?.starts ?? []).map((start) => ({ name, seed: info?.seed, ...start })),
  );
  return {
    id: 'versions',
    title: 'Versions and commands',
    body:
      starts.length === 0
        ? html`<p>No versions are known: run.json is missing.</p>`
        : table({
            caption: 'Each start of each run',
            head: [
              'Run',
              'Started',
              'Engine',
              'alitok',
              'Git revision',
              'Node.js',
              'tfjs',
              'Seed',
              'Command',
            ],
            rows: starts.map(({ name, time, engine, versions: of, git_revision, seed, command }) => [
              name,
              time.slice(0, 19).replace('T', ' '),
              engine?.description ?? '–',
              of?.alitok ?? '–',
              git_revision === null || git_revision === undefined
                ? '–'
                : git_revision.replace(/^(\w{10})\w+/, '$1'),
              of?.node ?? '–',
              of?.tfjs ?? '–',
              digits(seed),
              html`<code>${command}</code>`,
            ]),
          }),
  };
}
