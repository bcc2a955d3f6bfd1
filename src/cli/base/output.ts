import { dirname } from 'node:path';
import type { Limits } from '../../bench/measure.js';
import type { Job } from '../../job/job.js';
import { formatTable, type NameValue } from '../../text.js';

/** Prints names and values as a table. */
export function printTable(rows: readonly NameValue[]): void {
  console.log(formatTable(rows).join('\n'));
}

/** The measured limits of a machine, as rows of a table. */
export function limitsRows({ bandwidth, matrixRate }: Limits): NameValue[] {
  return [
    ['bandwidth', `${(bandwidth / 1e9).toFixed(1)} GB/s of memory reads, which limits decoding`],
    ['matrix rate', `${(matrixRate / 1e9).toFixed(0)} GFLOP/s, which limits training`],
  ];
}

/** @throws OutputError where the file of a result exists and alitok did not write it */
export async function refuseForeignResult(out: string | undefined): Promise<void> {
  const { refuseForeign } = await import('../../files/mark.js');
  if (out !== undefined) await refuseForeign(out);
}

/** A value of a result: four decimals, or three digits of a number that is mostly decimals, such as KID. */
function resultText(value: unknown): string {
  if (typeof value !== 'number' || Number.isInteger(value)) return String(value);
  return Math.abs(value) < 0.01 ? value.toPrecision(3) : value.toFixed(4);
}

/**
 * Prints a result as a table. With `out`, also writes it as JSON, together with `more` and with the command, the engine and
 * the versions; the file's folder is made if it does not exist.
 * @throws OutputError where the file cannot be written
 */
export async function showResult(
  result: object,
  job: Job,
  { out, more }: { out?: string; more?: object } = {},
): Promise<void> {
  const known = Object.entries(result).filter(([, value]) => value !== undefined);
  printTable(known.map(([name, value]): NameValue => [name, resultText(value)]));
  if (out === undefined) return;
  const { describeStart } = await import('../../run/record.js');
  const { MARK } = await import('../../files/mark.js');
  const { makeFolder, writeFileAtomic } = await import('../../files/atomic.js');
  await makeFolder(dirname(out));
  await writeFileAtomic(
    out,
    `${JSON.stringify({ software: MARK, ...result, ...more, ...describeStart(job) }, null, 2)}\n`,
  );
}
