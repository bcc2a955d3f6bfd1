import { existsSync } from 'node:fs';
import { appendFile, open, readFile } from 'node:fs/promises';
import { DataError } from '../errors.js';
import { outputError, writeOwnFile } from '../files/atomic.js';

/** Metrics of one step, by name. */
export type Metrics = Record<string, number>;

/** One line of the metrics log. Numbers that are not finite are null. */
export interface MetricsRow {
  step: number;
  /** Seconds since 1970. */
  time: number;
  [name: string]: number | null;
}

/** Columns of durations. In all others, the log of a resumed run is that of an uninterrupted one. */
export type Timing = Partial<Record<(typeof TIMING_COLUMNS)[number], number>>;
export const TIMING_COLUMNS = ['time', 'steps_per_second', 'data_wait'] as const;

export interface MetricsLog {
  /** Appends a line, with the current time. @throws OutputError if the disk is full or failing */
  append(row: { step: number; [name: string]: number | readonly number[] }, timing?: Timing): Promise<void>;
  /** Flushes all lines to the disk. @throws OutputError if that fails */
  sync(): Promise<void>;
}

/**
 * All lines of a metrics log, oldest first. An incomplete last line is ignored.
 * @throws DataError if the file is missing or another line is damaged
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

/** The lines of the first `lastStep` steps. Later ones may be damaged, if the machine failed before they were on the disk. */
async function readUntil(path: string, lastStep: number): Promise<string[]> {
  const lines = (await readFile(path, 'utf8')).split('\n').slice(0, -1);
  const parsed = lines.map((line) => {
    try {
      return (JSON.parse(line) as MetricsRow).step;
    } catch {
      return Number.NaN;
    }
  });
  const end = parsed.findLastIndex((step) => step <= lastStep) + 1;
  const damaged = parsed.slice(0, end).findIndex(Number.isNaN);
  if (damaged >= 0)
    throw new DataError(`${path}:${damaged + 1}: damaged line in the metrics log; remove the line`);
  return lines.filter((_, i) => parsed[i] <= lastStep);
}

/**
 * Opens the metrics log (JSON lines) of a run that has completed `lastStep` steps. 0 starts a new log; in an existing one,
 * lines of later steps are dropped, since those steps are repeated.
 * @throws OutputError if it cannot be written
 */
export async function openMetricsLog(path: string, lastStep: number): Promise<MetricsLog> {
  const kept = lastStep > 0 && existsSync(path) ? await readUntil(path, lastStep) : [];
  await writeOwnFile(path, kept.map((line) => `${line}\n`).join(''));
  const guard = async (write: () => Promise<void>) => {
    try {
      await write();
    } catch (error) {
      throw outputError(path, error);
    }
  };
  return {
    append({ step, ...metrics }, timing = {}) {
      const row = { step, time: Date.now() / 1000, ...metrics, ...timing };
      return guard(() => appendFile(path, `${JSON.stringify(row)}\n`));
    },
    sync: () =>
      guard(async () => {
        const handle = await open(path, 'r+');
        await handle.sync().finally(() => handle.close());
      }),
  };
}
