import { existsSync } from 'node:fs';
import { appendFile, readFile } from 'node:fs/promises';
import { DataError } from '../errors.js';
import { outputError, writeFileAtomic } from '../formats/atomic.js';

/** One line of the metrics log. Numbers that are not finite are null. */
export interface MetricsRow {
  step: number;
  /** Seconds since 1970. */
  time: number;
  [name: string]: number | null;
}

export interface MetricsLog {
  /** Adds a line, with the time of now. @throws OutputError where the disk is full or failing */
  append(row: { step: number; [name: string]: number | readonly number[] }): Promise<void>;
}

/**
 * All lines of a metrics log, oldest first. A last line that a crash cut off is left out.
 * @throws DataError where the file is missing or another line is damaged
 */
export async function readMetrics(path: string): Promise<MetricsRow[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new DataError(`cannot read the metrics log ${path}: ${(error as Error).message}`, { cause: error });
  }
  const lines = text.split('\n');
  lines.pop(); // empty, or cut off
  return lines.map((line, i) => {
    try {
      return JSON.parse(line);
    } catch (error) {
      throw new DataError(`${path}:${i + 1}: damaged line in the metrics log`, { cause: error });
    }
  });
}

/**
 * Opens the metrics log (JSON lines) of a run that has made `lastStep` steps: 0 starts a new log; in one that is
 * there already, lines of later steps are dropped, since those steps are made again.
 * @throws OutputError where it cannot be written
 */
export async function openMetricsLog(path: string, lastStep: number): Promise<MetricsLog> {
  const kept =
    lastStep > 0 && existsSync(path) ? (await readMetrics(path)).filter(({ step }) => step <= lastStep) : [];
  const toLine = (row: object) => `${JSON.stringify(row)}\n`;
  await writeFileAtomic(path, kept.map(toLine).join(''));
  return {
    async append({ step, ...metrics }) {
      try {
        await appendFile(path, toLine({ step, time: Date.now() / 1000, ...metrics }));
      } catch (error) {
        throw outputError(path, error);
      }
    },
  };
}
