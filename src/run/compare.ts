import { join } from 'node:path';
import { compareConfigs, type Difference, describeDifference } from '../config/compare.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { ConfigError, DataError, option } from '../errors.js';
import type { Reporter } from '../job/reporter.js';
import { CONFIG_FILE, describeStart, type RunOptions, type RunRecord } from './record.js';

export interface CompareOptions {
  /** The config's keys that decide what the training makes; all others only what is shown and kept of it. */
  decisive: RegExp;
  /** Takes other values of decisive keys, and other data. */
  allowChanges: boolean;
  reporter: Reporter;
}

const list = (differences: readonly Difference[]) => differences.map(describeDifference).join(', ');

/**
 * Compares a run that is to be resumed with how it was begun, and shows all that differs.
 * @throws ConfigError where a value differs that decides the result, DataError where the data do, unless that is allowed
 */
export function compareRun(
  folder: string,
  begun: RunRecord,
  now: RunOptions,
  { decisive, allowChanges, reporter }: CompareOptions,
): void {
  const remedy = `or accept the change by ${option('allowChanges')}: the result is then not that of one run`;
  const before: Config = loadConfig(join(folder, CONFIG_FILE));
  const differences = compareConfigs(before, now.config);
  const deciding = differences.filter(({ key }) => decisive.test(key));
  if (deciding.length > 0 && !allowChanges)
    throw new ConfigError(
      `${folder} was begun with other values, ${list(deciding)}; give the old ones, ${remedy}`,
    );
  const data = differencesOf(begun.inputs ?? now.inputs, now.inputs);
  if (data.length > 0 && !allowChanges)
    throw new DataError(`${folder} was begun on other data, ${list(data)}; give those, ${remedy}`);
  if (deciding.length + data.length > 0)
    reporter.warn(`the run goes on with changes that decide its result: ${list([...deciding, ...data])}`);
  const others = differences.filter((difference) => !deciding.includes(difference));
  if (others.length > 0)
    reporter.info(`the run goes on with changes that do not touch what it makes: ${list(others)}`);
  compareMachines(begun, now, reporter);
}

/** Another engine, or another version of anything, rounds otherwise; that is shown and no reason to stop. */
function compareMachines({ starts }: RunRecord, now: RunOptions, reporter: Reporter): void {
  const last = starts.at(-1);
  if (!last) return;
  const next = describeStart(now);
  const of = ({ engine, versions, git_revision }: typeof last) => {
    return { engine: engine.description, threads: engine.threads, ...versions, git_revision };
  };
  const differences = differencesOf(of(last), of(next));
  if (differences.length > 0)
    reporter.warn(
      `the run was not made by this very program and engine, so numbers may be rounded otherwise: ${list(differences)}`,
    );
}

function differencesOf(before: Record<string, unknown>, now: Record<string, unknown>): Difference[] {
  return [...new Set([...Object.keys(before), ...Object.keys(now)])]
    .map((key) => ({ key, before: before[key], now: now[key] }))
    .filter(({ before, now }) => before !== now);
}
