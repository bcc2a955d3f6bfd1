import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { TIMING_COLUMNS } from '../../src/train/metrics-log.js';

/** Files that say when and how a run was made, not what it made. */
const RECORDS = /(^|\/)(log\.jsonl|run\.json)$/;

/** A metrics log without its columns of time. */
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

/** All that is in a folder, by path: the lines of metrics logs, the hash of every other file. */
export async function contents(folder: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = relative(folder, path);
    if (entry.isDirectory() || RECORDS.test(name)) continue;
    const bytes = await readFile(path);
    found[name] = name.endsWith('metrics.jsonl')
      ? untimed(bytes.toString())
      : createHash('sha256').update(bytes).digest('hex');
  }
  return found;
}
