import { AlitokError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { MARK, refuseForeign } from '../files/mark.js';
import { packageVersion } from '../versions.js';
import { Html, html } from './html.js';
import { SCRIPT } from './page-script.js';
import { STYLE } from './page-style.js';
import { pagePictures } from './pictures.js';
import { readEvaluation, readRun } from './read-run.js';
import { nothingRecorded, runFolders } from './run-folders.js';
import * as sections from './sections.js';

export interface ReportOptions {
  /** Run folders, or the folders of tokenizers with both stages. */
  runs: readonly string[];
  /** Results of `alitok eval` besides those in the run folders. */
  evaluations: readonly string[];
  /** The HTML file. */
  out: string;
}

/** Reads a run with its pictures; a damaged picture is listed among the run's problems. */
async function openRun(folder: string): Promise<sections.PageRun> {
  const run = await readRun(folder);
  const shown: sections.PageRun['shown'] = new Map();
  for (const name of new Set(run.pictures.map((picture) => picture.name)))
    try {
      shown.set(name, await pagePictures(run.pictures.filter((picture) => picture.name === name)));
    } catch (error) {
      if (!(error instanceof AlitokError)) throw error;
      run.problems.push(error.message);
    }
  return { ...run, shown };
}

/** Names runs by their folders where names would be the same. */
function withDistinctNames(runs: readonly sections.PageRun[]): sections.PageRun[] {
  const same = (run: sections.PageRun) => runs.filter(({ name }) => name === run.name).length > 1;
  return runs.map((run) => (same(run) ? { ...run, name: run.folder } : run));
}

function page(title: string, parts: readonly sections.Section[], problems: readonly string[]): Html {
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="${MARK} ${packageVersion()}">
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${new Html(STYLE)}</style></head>
<body><header><div><h1>${title}</h1><p>${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, alitok ${packageVersion()}</p></div>
<button id="theme" type="button" hidden></button>
<nav aria-label="Contents"><ul>${parts.map(({ id, title: name }) => html`<li><a href="#${id}">${name}</a></li>`)}</ul></nav></header>
<main>
${
  problems.length > 0
    ? html`<div class="problems"><h2>Some files could not be read</h2><ul>${problems.map((line) => html`<li>${line}</li>`)}</ul></div>`
    : ''
}
${parts.map(({ id, title: name, body }) => html`<section aria-labelledby="${id}"><h2 id="${id}">${name}</h2>${body}</section>`)}
</main>
<footer>Made by <code>alitok report</code>. This page is self-contained and loads nothing.</footer>
<script>${new Html(SCRIPT)}</script></body></html>
`;
}

/**
 * Writes a self-contained HTML page about one or more runs. Missing or damaged files are listed on the page and returned,
 * one line each.
 * @throws DataError where a folder holds no run, or an evaluation cannot be read; OutputError where the page cannot be written
 */
export async function writeReport({ runs: paths, evaluations, out }: ReportOptions): Promise<string[]> {
  await refuseForeign(out);
  const folders = [...new Set(paths.flatMap(runFolders))];
  const named = await Promise.all(evaluations.map(readEvaluation));
  const runs = withDistinctNames(await Promise.all(folders.map(openRun)));
  const problems = runs.flatMap((run) => run.problems);
  if (runs.every(({ metrics, pictures }) => metrics.length === 0 && pictures.length === 0))
    throw nothingRecorded(paths, problems[0]);
  const parts = [
    sections.overview(runs),
    await sections.curves(runs),
    await sections.codebook(runs),
    ...sections.pictures(runs),
    sections.evaluations(runs, named),
    sections.configs(runs),
    sections.versions(runs),
  ].filter((part) => part !== undefined);
  const title = runs.map(({ name }) => name).join(', ');
  await writeFileAtomic(out, page(title, parts, problems).text);
  return problems;
}
