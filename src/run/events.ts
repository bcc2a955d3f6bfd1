import { appendFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder, outputError } from '../files/atomic.js';
import { type EventContent, eventRecord, type Histogram, type SummaryValue } from '../formats/tfevents.js';

/** TensorBoard reads all files of a folder with `tfevents` in their names, in the order of the names. */
const NAME = /^events\.out\.tfevents\.(\d+)\./;

/** The TensorBoard events of a run. */
export interface EventLog {
  /** Appends values of a step, with the current time. @throws OutputError if the disk is full or failing */
  append(step: number, values: readonly SummaryValue[]): Promise<void>;
}

/** A name for a new event file that sorts after the existing ones, even if the clock has been set back. */
async function nextName(folder: string): Promise<string> {
  const last = (await readdir(folder)).reduce(
    (latest, name) => Math.max(latest, Number(NAME.exec(name)?.[1] ?? 0)),
    0,
  );
  return `events.out.tfevents.${Math.max(Math.floor(Date.now() / 1000), last + 1)}.alitok`;
}

/**
 * Starts an event file in `folder` for a run that has completed `lastStep` steps. Files of earlier starts are not changed:
 * the new file tells readers to discard their values of later steps, which are repeated.
 * @throws OutputError if the folder cannot be written
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
 * The histogram of counts (integers): bucket 0 counts the zeros, bucket i values from 2^(i−1) to 2^i − 1. The first bucket
 * thus shows how many entries of a codebook are never chosen.
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
