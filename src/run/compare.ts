import { join } from 'node:path';
import { compareConfigs, type Difference, describeDifference } from '../config/compare.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { ConfigError, DataError, option } from '../errors.js';
import type { Reporter } from '../job/reporter.js';
import { CONFIG_FILE, describeStart, type RunOptions, type RunRecord } from './record.js';

export interface CompareOptions {
  /** Matches the config keys that affect the result of training. Others only affect what is shown and kept. */
  decisive: RegExp;
  /** Accepts other values of decisive keys, and other data. */
  allowChanges: boolean;
  reporter: Reporter;
}

const list = (differences: readonly Difference[]) => differences.map(describeDifference).join(', ');

/**
 * Compares a run that is about to be resumed with how it was started, and shows all differences.
 * @throws ConfigError if a decisive value differs, DataError if the data differ, unless changes are allowed
 */
export function compareRun(
  folder: string,
  begun: RunRecord,
  now: RunOptions,
  { decisive, allowChanges, reporter }: CompareOptions,
): void {
  const remedy = `or accept the change with ${option('allowChanges')}: the result is then not that of one run`;
  const before: Config = loadConfig(join(folder, CONFIG_FILE));
  const differences = compareConfigs(before, now.config);
  const deciding = differences.filter(({ key }) => decisive.test(key));
  if (deciding.length > 0 && !allowChanges)
    throw new ConfigError(
      `${folder} was started with other values, ${list(deciding)}; use the old ones, ${remedy}`,
    );
  const data = differencesOf(begun.inputs ?? now.inputs, now.inputs);
  if (data.length > 0 && !allowChanges)
    throw new DataError(`${folder} was started on other data, ${list(data)}; use the old data, ${remedy}`);
  if (deciding.length + data.length > 0)
    reporter.warn(`the run continues with changes that affect its result: ${list([...deciding, ...data])}`);
  const others = differences.filter((difference) => !deciding.includes(difference));
  if (others.length > 0)
    reporter.info(`the run continues with changes that do not affect its result: ${list(others)}`);
  compareMachines(begun, now, reporter);
}

/** Another engine or version may round differently, which is worth a warning but no reason to stop. */
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
      `the run was started with another program version or engine, which may round differently: ${list(differences)}`,
    );
}

function differencesOf(before: Record<string, unknown>, now: Record<string, unknown>): Difference[] {
  return [...new Set([...Object.keys(before), ...Object.keys(now)])]
    .map((key) => ({ key, before: before[key], now: now[key] }))
    .filter(({ before, now }) => before !== now);
}
