import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { TIMING_COLUMNS } from '../../src/run/metrics.js';
import { readEvents } from '../tensorboard/decode.js';

/** Files that describe when and how a run was made, not its results. */
const RECORDS = /(^|\/)(log\.jsonl|run\.json|samples\.json)$/;

/** A metrics log without its time columns. */
function untimed(text: string): object[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const row = JSON.parse(line);
      for (const column of TIMING_COLUMNS) delete row[column];
      return row;
    });
}

/** What TensorBoard shows of a folder, without times. */
async function shownEvents(folder: string): Promise<unknown[]> {
  const shown = (await readEvents(folder)).filter(({ tag }) => !TIMING_COLUMNS.some((name) => name === tag));
  return shown.map(({ step, tag, value }) => {
    const hash = createHash('sha256');
    for (const [field, [content]] of value) {
      hash.update(`${field} `);
      hash.update(content instanceof Uint8Array ? content : String(content));
    }
    return [step, tag, hash.digest('hex')];
  });
}

/** The contents of a folder, by path: the lines of logs, what TensorBoard shows, the hash of every other file. */
export async function contents(folder: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = relative(folder, path);
    if (entry.isDirectory() && entry.name === 'tensorboard') found[name] = await shownEvents(path);
    if (entry.isDirectory() || RECORDS.test(name) || /(^|\/)tensorboard\//.test(name)) continue;
    const bytes = await readFile(path);
    found[name] = /(metrics|code-counts)\.jsonl$/.test(name)
      ? untimed(bytes.toString())
      : createHash('sha256').update(bytes).digest('hex');
  }
  return found;
}
