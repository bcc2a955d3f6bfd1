import { dirname } from 'node:path';
import type { Job } from '../../job/job.js';

/** @throws OutputError where a result's file is there already and is none of alitok */
export async function refuseForeignResult(out: string | undefined): Promise<void> {
  const { refuseForeign } = await import('../../files/mark.js');
  if (out !== undefined) await refuseForeign(out);
}

/**
 * Prints a result as a table, and writes it as JSON if `out` is given, with `more` and with what ran on what,
 * in a folder that is made if need be.
 * @throws OutputError where the file cannot be written
 */
export async function showResult(
  result: object,
  job: Job,
  { out, more }: { out?: string; more?: object } = {},
): Promise<void> {
  const entries = Object.entries(result).filter(([, value]) => value !== undefined);
  const width = Math.max(...entries.map(([name]) => name.length));
  const text = (value: unknown) =>
    typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(4) : value;
  for (const [name, value] of entries) console.log(`${name.padEnd(width)}  ${text(value)}`);
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
