import { appendFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder, outputError } from '../files/atomic.js';
import { type EventContent, eventRecord, type Histogram, type SummaryValue } from '../formats/tfevents.js';

/** TensorBoard takes every file with `tfevents` in its name, and reads those of a folder in the order of their names. */
const NAME = /^events\.out\.tfevents\.(\d+)\./;

/** A run's events for TensorBoard. */
export interface EventLog {
  /** Adds values of a step, with the time of now. @throws OutputError where the disk is full or failing */
  append(step: number, values: readonly SummaryValue[]): Promise<void>;
}

/** A name for a new event file that sorts behind those that are there, even if the clock has been set back. */
async function nextName(folder: string): Promise<string> {
  const last = (await readdir(folder)).reduce(
    (latest, name) => Math.max(latest, Number(NAME.exec(name)?.[1] ?? 0)),
    0,
  );
  return `events.out.tfevents.${Math.max(Math.floor(Date.now() / 1000), last + 1)}.alitok`;
}

/**
 * Begins an event file in `folder` for a run that has made `lastStep` steps. Files of earlier starts stay as they are:
 * the new one tells readers to drop what those have of later steps, since these are made again.
 * @throws OutputError where the folder cannot be written
 */
export async function openEventLog(folder: string, lastStep: number): Promise<EventLog> {
  let path = folder;
  const write = async (step: number, content: EventContent) => {
    try {
      await appendFile(path, eventRecord(Date.now() / 1000, step, content));
    } catch (error) {
      throw outputError(path, error);
    }
  };
  await makeFolder(folder);
  path = join(folder, await nextName(folder));
  await write(lastStep + 1, { version: true });
  await write(lastStep + 1, { start: true });
  return { append: (step, values) => write(step, { values }) };
}

/**
 * The distribution of counts (whole numbers): bucket 0 has the zeros, and bucket i those of 2^(i−1) to 2^i − 1. So its
 * first bucket shows how many entries of a codebook are never chosen.
 */
export function countsHistogram(counts: ArrayLike<number>): Histogram {
  const values = Array.from(counts);
  const buckets: number[] = [0];
  for (const value of values) {
    const bucket = value === 0 ? 0 : Math.floor(Math.log2(value)) + 1;
    while (buckets.length <= bucket) buckets.push(0);
    buckets[bucket] += 1;
  }
  const sum = (of: (value: number) => number) => values.reduce((total, value) => total + of(value), 0);
  return {
    min: values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY),
    max: values.reduce((a, b) => Math.max(a, b), 0),
    count: values.length,
    sum: sum((value) => value),
    sumOfSquares: sum((value) => value * value),
    limits: buckets.map((_, i) => 2 ** i - 0.5),
    counts: buckets,
  };
}
